package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"
)

// tableRows is how many certificates are aligned together: so many are in memory.
const tableRows = 1000

// WriteTable writes `certs list` for people: a line for each certificate. Now is what the times are relative to. It ends with the first error.
func WriteTable(w io.Writer, certs iter.Seq2[CertStatus, error], now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	for c, err := range certs {
		if err != nil {
			return errors.Join(tw.Flush(), err)
		}
		if rows == 0 {
			fmt.Fprintln(tw, "NAME\tSTATE\tCA\tENDS\tRENEWS\tLAST ERROR")
		}
		if rows++; rows%tableRows == 0 {
			if err := tw.Flush(); err != nil {
				return err
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n",
			printable(c.Name), printable(c.State), orDash(printable(c.CA)), relative(c.NotAfter, now), relative(c.RenewAt, now), orDash(trouble(&c, now)))
	}
	if rows == 0 {
		_, err := fmt.Fprintln(w, "no such certificates")
		return err
	}
	return tw.Flush()
}

// trouble is what keeps the certificate, in a few words.
func trouble(c *CertStatus, now time.Time) string {
	words := printable(c.LastError)
	if c.Budget != "" {
		words = strings.TrimSuffix("budget "+printable(c.Budget)+" is used up; "+words, "; ")
	}
	switch {
	case c.Position > 0:
		words = fmt.Sprintf("%s (number %d in the queue, expected %s)", words, c.Position, relative(c.Expected, now))
	case c.OnVisit && c.NextAttempt.After(now):
		words += " (next attempt " + relative(c.NextAttempt, now) + " at the earliest, then when a visitor comes)"
	case c.OnVisit && c.LastError != "":
		words += " (next attempt when a visitor comes)"
	case c.NextAttempt.After(now):
		words += " (next attempt " + relative(c.NextAttempt, now) + ")"
	}
	if words = strings.TrimSpace(words); words == "" && c.Second != nil {
		if words = trouble(c.Second, now); words != "" {
			words = "second certificate: " + words
		}
	}
	return words
}

// WriteJSONList writes the certificates for programs, as they come.
func WriteJSONList(w io.Writer, certs iter.Seq2[CertStatus, error]) error {
	between := "[\n  "
	for c, err := range certs {
		if err != nil {
			return err
		}
		data, err := json.MarshalIndent(c, "  ", "  ")
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, between+string(data)); err != nil {
			return err
		}
		between = ",\n  "
	}
	end := "\n]\n"
	if between[0] == '[' {
		end = "[]\n"
	}
	_, err := io.WriteString(w, end)
	return err
}
