package acmeclient

import (
	"context"
	"slices"
)

const maxListPages = 200

// Of a long list only the ends are read: orders stand there in the order of their time, in either direction.
const (
	listHead = 8
	listTail = 32
)

// undecided implements dialect by the list of RFC 8555 §7.1.2.1. Beside an error it returns what was found before.
func (d *v2) undecided(ctx context.Context) (orders []*order, err error) {
	urls, err := d.listOrders(ctx)
	if err != nil {
		return nil, err
	}
	if len(urls) > listHead+listTail {
		urls = append(urls[:listHead:listHead], urls[len(urls)-listTail:]...)
	}
	for _, url := range slices.Backward(urls) {
		o := &order{url: url}
		if err := d.refresh(ctx, o); err != nil && (ctx.Err() != nil || isDown(err)) {
			return orders, err
		} else if err == nil && (o.status == statusPending || o.status == statusReady) {
			orders = slices.Insert(orders, 0, o)
		}
	}
	return orders, nil
}

// listOrders returns the URLs of the account's orders as the CA lists them.
func (d *v2) listOrders(ctx context.Context) (urls []string, err error) {
	var acct struct {
		Orders string `json:"orders"`
	}
	ex, err := d.post(ctx, "read the account", endpointAccount, d.account.URL, []byte{}, &acct)
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
