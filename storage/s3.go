package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"go.uber.org/zap"
)

// S3 is a Store in a bucket of an object store that speaks S3, shared by any number of hosts. Below its prefix:
//
//	objects/certs/a.example   the object certs/a.example, with the header that disk's files have (see diskobject.go)
//	leases/issue/a.example    who holds, or held, the lease issue/a.example
//	selftest/...              objects of a running SelfTest
//
// Versions are the store's ETag and our own nonce. The nonce tells a write whose answer was lost from somebody else's, and makes ETags differ that are MD5 sums of
// contents. An object that DeleteIf has removed is overwritten with a tombstone, since four stores in five ignore conditions on DELETE.
//
// Conditional writes and leases trust the store's If-Match and If-None-Match; until SelfTest has passed they run it first and fail with its error.
//
// Requests: Get 1 GET, 2 if the object is damaged; Put 1 PUT; PutIf 1 PUT, a refused creation 1 GET more; Delete 1 DELETE; List 1 LIST for each 1000 names;
// an uncontended Lease with its Release 1 GET and 2 PUT, 1 PUT more for each LeaseTimes.Beat it is held, 1 GET for each LeaseTimes.Poll somebody waits.
type S3 struct {
	cfg   S3Config
	log   *zap.Logger
	where string // bucket and endpoint, for people

	idle   interface{ CloseIdleConnections() } // nil if the transport is not ours
	counts *s3Counts
	client *s3.Client // sends reads and unconditional writes up to three times
	once   *s3.Client // sends once: a hidden second try turns our own success into a refusal

	objects *s3Space
	leases  *casLeases
	host    *Disk    // for single-node: who writes and holds on this host
	witness *witness // knows which processes of this host are dead; nil without S3Config.LockDir
	closing sync.Once

	unquoted   atomic.Bool   // this store wants If-Match without quotes (Ceph RGW 16)
	deletesIf  atomic.Bool   // this store obeys If-Match on DELETE
	tested     atomic.Bool   // SelfTest has passed
	selfTester chan struct{} // holds one element while SelfTest runs

	calls *openCalls
}

// S3Config says which bucket it is and how it is reached. Credentials come from where AWS's own tools take them: the environment, the shared files and
// their profiles (SSO, role), web identity, container, and the instance's metadata.
type S3Config struct {
	// Endpoint is the URL of the store, which is then addressed by path. Empty means AWS's own for the region.
	Endpoint string

	// Region is what requests are signed for. Empty means that of the environment or the shared files; with an Endpoint, us-east-1 if these have none.
	Region string

	// Bucket must exist. Required.
	Bucket string

	// Prefix begins all keys, with a slash after it. Empty means none.
	Prefix string

	// PathStyle puts the bucket into the path even without an Endpoint.
	PathStyle bool

	// ConditionalWrites is "require" (as is empty): a store that ignores conditions is refused. Or "single-node": nothing is asked of the store, and leases and
	// conditional writes exclude the processes of this host only. Then no other host may use the bucket.
	ConditionalWrites string

	// LockDir is a local folder for this host's processes: for the locks of "single-node", which needs it, and otherwise so that they know of each other's
	// death, and leases of one that was killed are free at once. Not on a network file system, and not the folder of a Disk.
	LockDir string

	// Timeout bounds every call whose context ends no sooner, with its repetitions. Zero means 10 s.
	Timeout time.Duration

	// Lease has the times of leases; all nodes should have the same.
	Lease LeaseTimes

	// Transport carries the requests. Nil means one of our own, with the proxy of the environment and AWS_CA_BUNDLE.
	Transport http.RoundTripper
}

var (
	_ Store    = (*S3)(nil)
	_ Salvager = (*S3)(nil)
)

// errS3Closed is what calls get that come after Close or still wait when it begins.
var errS3Closed = fmt.Errorf("the storage was closed: %w", fs.ErrClosed)

// maxS3Prefix leaves room for the longest name in the 1024 bytes of a key.
const maxS3Prefix = 400

// OpenS3 prepares a store without asking it anything: call SelfTest next. ctx bounds the reading of shared files. log may be nil.
func OpenS3(ctx context.Context, cfg S3Config, log *zap.Logger) (*S3, error) {
	if log == nil {
		log = zap.NewNop()
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", cfg.Bucket, err)
	}
	s := &S3{cfg: cfg, log: log, counts: new(s3Counts), selfTester: make(chan struct{}, 1), calls: newOpenCalls()}
	if err := s.connect(ctx); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", cfg.Bucket, err)
	}
	s.objects = &s3Space{s: s, prefix: cfg.Prefix + "objects/"}
	if !s.singleNode() && cfg.LockDir != "" {
		if s.witness, err = openWitness(cfg.LockDir); err != nil { // then a dead neighbour's leases pass as those of other hosts do
			log.Warn("leases of processes that die on this host will be held until they pass", zap.String("folder", cfg.LockDir), zap.Error(err))
		}
	}
	s.leases = newCASLeases(&s3Space{s: s, prefix: cfg.Prefix + "leases/"}, cfg.Lease, log, s.witness)
	if s.singleNode() {
		if s.host, err = OpenDisk(cfg.LockDir, log); err != nil {
			return nil, fmt.Errorf("open bucket %s: folder for the locks of single-node: %w", cfg.Bucket, err)
		}
		log.Warn("bucket is used as by a single node: leases exclude this host's processes only, another node would issue the same certificates and overwrite ours",
			zap.String("bucket", s.where), zap.String("conditional_writes", cfg.ConditionalWrites))
	}
	return s, nil
}

func (c S3Config) withDefaults() (S3Config, error) {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.ConditionalWrites == "" {
		c.ConditionalWrites = "require"
	}
	var faults []error
	if c.Bucket == "" {
		faults = append(faults, errors.New("no bucket: set storage.s3.bucket"))
	}
	if c.ConditionalWrites != "require" && c.ConditionalWrites != "single-node" {
		faults = append(faults, fmt.Errorf(`storage.s3.conditional_writes is %q: write "require" or "single-node"`, c.ConditionalWrites))
	}
	if c.ConditionalWrites == "single-node" && c.LockDir == "" {
		faults = append(faults, errors.New("single-node needs a local folder for its locks"))
	}
	if c.Prefix = strings.Trim(c.Prefix, "/"); c.Prefix != "" {
		if err := CheckName(c.Prefix); err != nil || len(c.Prefix) > maxS3Prefix {
			faults = append(faults, fmt.Errorf("storage.s3.prefix %q: write at most %d bytes of the form of an object's name, such as gatelodge/prod", c.Prefix, maxS3Prefix))
		}
		c.Prefix += "/"
	}
	var err error
	if c.Lease, err = c.Lease.withDefaults(); err != nil {
		faults = append(faults, err)
	}
	return c, errors.Join(faults...)
}

func (s *S3) singleNode() bool { return s.cfg.ConditionalWrites == "single-node" }

// Lease implements Store.
func (s *S3) Lease(ctx context.Context, name string) (Lease, error) {
	if s.singleNode() {
		return s.host.Lease(ctx, name)
	}
	if err := checkCall(ctx, name); err != nil {
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	if err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	return s.leases.Lease(ctx, name)
}

// Close ends calls that wait, gives up leases that are still held (their contexts end with cause ErrLeaseLost), and waits for calls in progress.
// Closing twice is harmless.
func (s *S3) Close() error {
	err := s.leases.close(errS3Closed)
	s.calls.close(errS3Closed)
	if s.host != nil {
		err = errors.Join(err, s.host.Close())
	}
	s.closing.Do(func() { err = errors.Join(err, s.witness.close()) })
	if s.idle != nil {
		s.idle.CloseIdleConnections()
	}
	if err != nil {
		return fmt.Errorf("close bucket %s: %w", s.where, err)
	}
	return nil
}
