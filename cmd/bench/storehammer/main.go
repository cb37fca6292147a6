// Storehammer tries whether a bucket can be shared by nodes that die and stand still.
//
// Some processes take one lease in turn; whoever has it reads an object, works a little, and writes it back with a line more, by compare-and-swap. Meanwhile holders
// of the lease are killed (kill -9) or stopped for longer than the lease lasts (SIGSTOP). In the end every write that was acknowledged must be in the object,
// and fences must go up from line to line. With -without-cas the same is done with plain writes; then updates must get lost, or the hammer proves nothing.
//
//	storehammer -endpoint http://127.0.0.1:7070 -bucket test
//
// Credentials come from the environment or AWS's shared files, as those of gatelodge do.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"gatelodge/storage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "storehammer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if isWorker() {
		return work(ctx)
	}
	h := hammer{}
	var limit time.Duration
	flags := flag.NewFlagSet("storehammer", flag.ContinueOnError)
	flags.StringVar(&h.Bucket.Endpoint, "endpoint", "", "URL of the store; empty: AWS")
	flags.StringVar(&h.Bucket.Region, "region", "", "region that requests are signed for")
	flags.StringVar(&h.Bucket.Bucket, "bucket", "", "bucket, which must exist")
	flags.StringVar(&h.Bucket.Prefix, "prefix", "storehammer", "where in the bucket; what is there is overwritten")
	flags.DurationVar(&h.Bucket.Lease.Lease, "lease", 1500*time.Millisecond, "how long a lease lasts without a beat")
	flags.IntVar(&h.Processes, "processes", 8, "how many compete")
	flags.IntVar(&h.Sections, "sections", 400, "how many writes there are at least")
	flags.IntVar(&h.Kills, "kills", 5, "how many holders are killed")
	flags.IntVar(&h.Pauses, "pauses", 5, "how many holders are stopped for longer than a lease")
	flags.BoolVar(&h.WithoutCAS, "without-cas", false, "write without compare-and-swap: the control")
	flags.DurationVar(&limit, "limit", 10*time.Minute, "when to give up")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	report, err := h.run(ctx)
	if err != nil {
		return err
	}
	fmt.Println(report)
	return report.verdict()
}

// times are those of a lease of that length.
func times(lease time.Duration) storage.LeaseTimes {
	return storage.LeaseTimes{Lease: lease, Beat: lease / 3, Poll: lease / 50}
}
