package dnsprovider

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain is also the program that exec runs in these tests, told what to do by its first argument.
func TestMain(m *testing.M) {
	if os.Getenv("DNSPROVIDER_HOOK") == "" {
		// net/http waits for half a second in it before it closes a connection whose client may still be sending, longer than goleak waits.
		goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
		return
	}
	verb, args := os.Args[1], os.Args[2:]
	switch verb {
	case "append": // FILE present|cleanup NAME VALUE
		f, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, strings.Join(args[1:], " "))
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "fail":
		fmt.Fprintf(os.Stderr, "%s\x1b[31mno such\nzone\n", strings.Repeat("much said before ", 200))
		os.Exit(3)
	case "hang":
		time.Sleep(time.Minute)
	}
}
