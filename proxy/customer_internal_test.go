package proxy

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counted is an upstream that counts how often it was closed.
type counted struct {
	nowhere
	closed *atomic.Int32
}

func (c counted) Close() error { c.closed.Add(1); return nil }

func TestCustomerPools_AreBoundedAndClosedWhenNobodyUsesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pools customerPools
		var opened, closed atomic.Int32
		open := func(string) (Upstream, error) { opened.Add(1); return counted{closed: &closed}, nil }
		ctx, cancel := context.WithCancel(t.Context())
		var own sync.WaitGroup
		own.Go(func() { pools.tend(ctx) })
		for i := range maxCustomerPools + 10 {
			if _, err := pools.get(fmt.Sprint("http://", i), open); err != nil {
				t.Fatal(err)
			}
		}
		if pools.len() != maxCustomerPools || closed.Load() != 10 {
			t.Errorf("%d are open, %d closed", pools.len(), closed.Load())
		}
		for range 3 {
			time.Sleep(customerPoolsIdle / 2)
			_, _ = pools.get("http://5000", open)
			_, _ = pools.get("http://100", open)
		}
		if pools.len() != 2 || opened.Load() != maxCustomerPools+11 {
			t.Errorf("%d are left of %d, two were used", pools.len(), opened.Load())
		}
		cancel()
		own.Wait()
		pools.close()
		if pools.len() != 0 || closed.Load() != opened.Load() {
			t.Errorf("%d opened, %d closed", opened.Load(), closed.Load())
		}
	})
}

var _ http.RoundTripper = counted{}
