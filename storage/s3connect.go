package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
)

// connect makes the two clients.
func (s *S3) connect(ctx context.Context) error {
	if s.cfg.Endpoint != "" {
		if u, err := url.Parse(s.cfg.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("storage.s3.endpoint %q: write a URL such as https://s3.example.com", s.cfg.Endpoint)
		}
	}
	base, err := config.LoadDefaultConfig(ctx, config.WithRegion(s.cfg.Region), config.WithLogger(logging.Nop{}))
	if err != nil {
		return fmt.Errorf("read AWS settings: %w", err)
	}
	if base.Region == "" && s.cfg.Endpoint == "" {
		return errors.New("no region: set storage.s3.region, or AWS_REGION")
	}
	region := cmp.Or(base.Region, "us-east-1")
	s.where = s.cfg.Bucket + " at " + cmp.Or(s.cfg.Endpoint, "AWS "+region)

	httpClient := &http.Client{Transport: s.counts.count(s.transport(base)), CheckRedirect: sameMethodOnly}
	options := func(o *s3.Options) {
		o.Region = region
		o.HTTPClient = httpClient
		o.UsePathStyle = s.cfg.PathStyle || s.cfg.Endpoint != ""
		if s.cfg.Endpoint != "" {
			o.BaseEndpoint = &s.cfg.Endpoint
		}
		// R2, Ceph, GCS and older MinIO refuse or mishandle the checksums that the SDK adds by default. Objects have one of ours.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = 3
			r.Retryables = append(r.Retryables, retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{http.StatusTooManyRequests: {}}}) // R2's word for SlowDown
			r.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
				return jitter(time.Duration(attempt) * 75 * time.Millisecond), nil // a handshake waits for half a second in all
			})
		})
	}
	s.client = s3.NewFromConfig(base, options)
	s.once = s3.NewFromConfig(base, options, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
	return nil
}

// transport is the configured one, or one of our own.
func (s *S3) transport(base aws.Config) http.RoundTripper {
	if s.cfg.Transport != nil {
		return s.cfg.Transport
	}
	builder, ok := base.HTTPClient.(*awshttp.BuildableClient) // has the AWS_CA_BUNDLE
	if !ok {
		builder = awshttp.NewBuildableClient()
	}
	t := builder.GetTransport()
	t.DialContext = (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 32, 32
	t.TLSHandshakeTimeout = min(5*time.Second, s.cfg.Timeout/2)
	t.ResponseHeaderTimeout = s.cfg.Timeout / 2 // so that there is time for another try, or to read back
	s.idle = t
	return t
}

// sameMethodOnly follows redirects that repeat the request as it is, as the SDK's own client does.
func sameMethodOnly(r *http.Request, via []*http.Request) error {
	switch r.Response.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if len(via) < 3 {
			return nil
		}
	}
	return http.ErrUseLastResponse
}
