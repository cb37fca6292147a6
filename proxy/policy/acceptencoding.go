package policy

import "strings"

// negotiate chooses among the codings that are offered, best first, the one that the client likes best; empty means none (RFC 9110 §12.5.3). Where the
// client likes several equally well the first of them is taken. The content stays as it is where the client likes that better, and where it says nothing.
func negotiate(fields, offered []string) string {
	var weights weights
	for _, field := range fields {
		for item := range strings.SplitSeq(field, ",") {
			coding, q, ok := parseWeighted(item)
			if ok {
				weights.set(coding, q)
			}
		}
	}
	best, most := "", 0
	for _, coding := range offered {
		if q := weights.of(coding); q > most {
			best, most = coding, q
		}
	}
	if weights.identity > most {
		return ""
	}
	return best
}

// weights are what a client says about the codings that we know, in thousandths; zero is "not at all", or nothing said.
type weights struct {
	zstd, br, gzip, identity, any         int
	saidZstd, saidBr, saidGzip, saidOther bool
}

// set takes the word about one coding. What is said twice counts the first time.
func (w *weights) set(coding string, q int) {
	said, weight := &w.saidOther, &w.any
	switch {
	case strings.EqualFold(coding, "zstd"):
		said, weight = &w.saidZstd, &w.zstd
	case strings.EqualFold(coding, "br"):
		said, weight = &w.saidBr, &w.br
	case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"): // RFC 9110 §8.4.1.3
		said, weight = &w.saidGzip, &w.gzip
	case strings.EqualFold(coding, "identity"):
		w.identity = q
		return
	case coding != "*":
		return
	}
	if !*said {
		*said, *weight = true, q
	}
}

func (w *weights) of(coding string) int {
	said, weight := false, 0
	switch coding {
	case "zstd":
		said, weight = w.saidZstd, w.zstd
	case "br":
		said, weight = w.saidBr, w.br
	case "gzip":
		said, weight = w.saidGzip, w.gzip
	}
	if said {
		return weight
	}
	return w.any
}

// parseWeighted takes "gzip", "gzip;q=0.5" and "gzip ; q=1.000", and nothing that RFC 9110 §12.4.2 does not have: what cannot be read is not offered. The
// weight is in thousandths.
func parseWeighted(item string) (coding string, q int, ok bool) {
	coding, params, weighted := strings.Cut(item, ";")
	coding = strings.Trim(coding, " \t")
	if coding == "" {
		return "", 0, false
	}
	if !weighted {
		return coding, 1000, true
	}
	params = strings.Trim(params, " \t")
	if len(params) < 3 || params[0]|0x20 != 'q' || params[1] != '=' {
		return "", 0, false
	}
	value := params[2:]
	if value[0] != '0' && value[0] != '1' || len(value) > 5 || len(value) > 1 && value[1] != '.' {
		return "", 0, false
	}
	q = int(value[0]-'0') * 1000
	for i, scale := 2, 100; i < len(value); i, scale = i+1, scale/10 {
		if value[i] < '0' || value[i] > '9' {
			return "", 0, false
		}
		q += int(value[i]-'0') * scale
	}
	return coding, q, q <= 1000
}
