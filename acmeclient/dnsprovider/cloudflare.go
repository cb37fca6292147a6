package dnsprovider

import (
	"net/http"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/cloudflare"
)

// requestTimeout bounds one request to a provider's API.
const requestTimeout = 30 * time.Second

func newCloudflare(s *settings) certmagic.DNSProvider {
	p := &cloudflare.Provider{APIToken: s.secret("token"), HTTPClient: &http.Client{Timeout: requestTimeout}}
	if s.has("zone_token") {
		p.ZoneToken = s.secret("zone_token")
	}
	return p
}
