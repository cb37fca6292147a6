package migrate

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// Account is an account at a CA. Printing one by any verb or encoder shows no key.
type Account struct {
	// Where it was found, for a person.
	Where string

	// Directory is the URL of the CA's directory. Empty if the source does not tell it (acme.json): then URL says which CA it is.
	Directory string

	// URL is that of the account; it may be empty, and a CA that is asked with the key tells it.
	URL string

	// Contact are URLs, such as mailto:ops@example.com.
	Contact []string

	// Key is the account's private key as PKCS #8 DER.
	Key []byte
}

// String says which account it is.
func (a Account) String() string { return fmt.Sprintf("account %s (%s)", a.URL, a.Where) }

// Format implements fmt.Formatter: every verb prints String.
func (a Account) Format(f fmt.State, _ rune) { io.WriteString(f, a.String()) }

// MarshalJSON implements json.Marshaler.
func (a Account) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// ByURL is for Options.CA: it finds the name of the CA by the URL of its directory or, failing that, by the host alone if only one CA is there. The argument
// has the directories by name.
func ByURL(directories map[string]string) func(url string) string {
	return func(asked string) string {
		byHost, hosts := "", 0
		for name, directory := range directories {
			if strings.TrimSuffix(directory, "/") == strings.TrimSuffix(asked, "/") {
				return name
			}
			if host := hostOf(directory); host != "" && host == hostOf(asked) {
				byHost = name
				hosts++
			}
		}
		if hosts == 1 {
			return byHost
		}
		return ""
	}
}

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}
