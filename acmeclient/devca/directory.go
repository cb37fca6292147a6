package devca

import "net/http"

const (
	endpointDirectory = "directory"
	termsPath         = "/terms/v1"
)

type directoryV2 struct {
	NewNonce    string        `json:"newNonce"`
	NewAccount  string        `json:"newAccount"`
	NewOrder    string        `json:"newOrder"`
	RevokeCert  string        `json:"revokeCert"`
	KeyChange   string        `json:"keyChange"`
	RenewalInfo string        `json:"renewalInfo"`
	Meta        directoryMeta `json:"meta"`
}

type directoryMeta struct {
	TermsOfService string            `json:"termsOfService"`
	Website        string            `json:"website"`
	CAAIdentities  []string          `json:"caaIdentities"`
	Profiles       map[string]string `json:"profiles,omitempty"`
}

// caaIdentity is a name that nobody can own.
const caaIdentity = "devca.invalid"

// serveDirectory: RFC 8555 §7.1.1.
func (ca *CA) serveDirectory(c *call) (*reply, error) {
	d := directoryV2{
		NewNonce:    c.base + "/v2/new-nonce",
		NewAccount:  c.base + "/v2/new-acct",
		NewOrder:    c.base + "/v2/new-order",
		RevokeCert:  c.base + "/v2/revoke-cert",
		KeyChange:   c.base + "/v2/key-change",
		RenewalInfo: c.base + "/v2/renewal-info",
		Meta: directoryMeta{
			TermsOfService: c.base + termsPath,
			Website:        "https://" + caaIdentity,
			CAAIdentities:  []string{caaIdentity},
		},
	}
	if len(ca.cfg.Profiles) > 0 {
		d.Meta.Profiles = make(map[string]string)
		for name, p := range ca.cfg.Profiles {
			d.Meta.Profiles[name] = p.Description
		}
	}
	return answer(http.StatusOK, d), nil
}

// serveNewNonce: RFC 8555 §7.2: HEAD answers 200, GET 204, never stored. The nonce itself is in every answer anyway.
func (ca *CA) serveNewNonce(c *call) (*reply, error) {
	status := http.StatusOK
	if c.r.Method == http.MethodGet {
		status = http.StatusNoContent
	}
	return answer(status, nil).with("Cache-Control", "no-store"), nil
}

func (ca *CA) serveTerms(w http.ResponseWriter) {
	a := &reply{status: http.StatusOK, raw: []byte("This CA is for trying out. Trust its root on this machine only, if at all.\n"), ctype: "text/plain; charset=utf-8"}
	writeReply(w, a)
}
