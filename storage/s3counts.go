package storage

import (
	"net/http"
	"sync/atomic"
)

// S3Stats counts the requests that were sent to the bucket, repetitions too.
type S3Stats struct {
	Get    uint64 // objects and leases; those that were answered "not modified" among them
	Put    uint64
	Delete uint64
	List   uint64

	NotModified uint64 // answers 304: a lease that somebody still holds
	Refused     uint64 // answers 409 and 412: a condition did not hold
	Failed      uint64 // 5xx, 429, or no answer
}

// Stats returns the counts since OpenS3.
func (s *S3) Stats() S3Stats {
	c := s.counts
	return S3Stats{
		Get: c.get.Load(), Put: c.put.Load(), Delete: c.delete.Load(), List: c.list.Load(),
		NotModified: c.notModified.Load(), Refused: c.refused.Load(), Failed: c.failed.Load(),
	}
}

type s3Counts struct {
	get, put, delete, list       atomic.Uint64
	notModified, refused, failed atomic.Uint64
}

// count puts the counting before a transport.
func (c *s3Counts) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		switch {
		case r.Method == http.MethodPut:
			c.put.Add(1)
		case r.Method == http.MethodDelete:
			c.delete.Add(1)
		case r.URL.Query().Has("list-type"):
			c.list.Add(1)
		default:
			c.get.Add(1)
		}
		answer, err := next.RoundTrip(r)
		switch {
		case err != nil || answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests:
			c.failed.Add(1)
		case answer.StatusCode == http.StatusNotModified:
			c.notModified.Add(1)
		case answer.StatusCode == http.StatusPreconditionFailed || answer.StatusCode == http.StatusConflict:
			c.refused.Add(1)
		}
		return answer, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
