package proxy

import (
	"html"
	"net/http"
	"strconv"
	"strings"
)

// errorPage is the answer of our own to a request, as text or, for browsers, as a page. It has the status and the id by which an operator finds what happened,
// and no detail: what stands behind us is nobody's business.
func errorPage(status int, id string, asHTML bool) (contentType, body string) {
	title := strconv.Itoa(status) + " " + http.StatusText(status)
	if !asHTML {
		if status < 400 {
			return "text/plain; charset=utf-8", title + "\n"
		}
		return "text/plain; charset=utf-8", title + "\nrequest id: " + id + "\n"
	}
	id = html.EscapeString(id) // a trusted proxy may have chosen it
	return "text/html; charset=utf-8", `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>` + title + `</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 20vh auto; padding: 0 1rem; color-scheme: light dark }</style>
<h1>` + title + `</h1>
<p>` + advice(status) + `</p>
<p><small>Request id: <code>` + id + `</code></small></p>
</html>
`
}

// advice is what a person before a browser can do.
func advice(status int) string {
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return "Please wait a moment and try again."
	case status == http.StatusUnauthorized:
		return "You need a name and a password for this page."
	case status == http.StatusForbidden:
		return "This page is not open to you."
	case status == http.StatusNotFound:
		return "There is no such page."
	case status >= 500:
		return "The site cannot be reached at the moment. Please try again in a while."
	}
	return "The request could not be served."
}

// wantsHTML reports whether the client is a browser that shows a page to a person. Others say that they take anything, or something else.
func wantsHTML(accept []string) bool {
	for _, field := range accept {
		for item := range strings.SplitSeq(field, ",") {
			media, params, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.Trim(media, " \t"), "text/html") {
				return !strings.Contains(params, "q=0") || strings.Contains(params, "q=0.")
			}
		}
	}
	return false
}
