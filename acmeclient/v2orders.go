package acmeclient

import "context"

const opReadAccount = "read the account"

// undecided implements dialect by the list of RFC 8555 §7.1.2.1. What cannot be read of it is left out.
func (d *v2) undecided(ctx context.Context) ([]*order, error) {
	urls, err := d.listOrders(ctx)
	if err != nil {
		return nil, err
	}
	if len(urls) > listHead+listTail {
		urls = append(urls[:listHead:listHead], urls[len(urls)-listTail:]...)
	}
	var undecided []*order
	for _, url := range urls {
		o := &order{url: url}
		if err := d.refresh(ctx, o); ctx.Err() != nil {
			return nil, err
		} else if err == nil && (o.status == statusPending || o.status == statusReady) {
			undecided = append(undecided, o)
		}
	}
	return undecided, nil
}

// listOrders returns the URLs of the account's orders as the CA lists them.
func (d *v2) listOrders(ctx context.Context) (urls []string, err error) {
	var acct struct {
		Orders string `json:"orders"`
	}
	ex, err := d.post(ctx, opReadAccount, endpointAccount, d.account.URL, []byte{}, &acct)
	if err != nil {
		return nil, err
	}
	if acct.Orders == "" {
		return nil, errNoList
	}
	for page, n := absolute(ex.url, acct.Orders), 0; page != "" && n < maxListPages; n++ {
		var answer struct {
			Orders []string `json:"orders"`
		}
		ex, err := d.post(ctx, "read the account's list of orders", endpointOrder, page, []byte{}, &answer)
		if err != nil {
			return nil, err
		}
		for _, ref := range answer.Orders {
			if url := absolute(ex.url, ref); url != "" {
				urls = append(urls, url)
			}
		}
		if page = ""; len(answer.Orders) > 0 {
			for _, next := range links(ex.header, "next", ex.url) {
				page = next
			}
		}
	}
	return urls, nil
}
