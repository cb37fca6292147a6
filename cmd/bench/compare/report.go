package main

import (
	"fmt"
	"slices"
	"text/tabwriter"
	"time"
)

// figures are the measurements by row and peer.
type figures map[string]map[string][]value

func (f figures) add(row, peer string, v value) {
	if f[row] == nil {
		f[row] = map[string][]value{}
	}
	f[row][peer] = append(f[row][peer], v)
}

// median returns the measurement whose cost is the middle one, and the spread of the costs around it.
func median(values []value) (v value, low, high float64) {
	sorted := slices.SortedFunc(slices.Values(values), func(a, b value) int {
		switch {
		case a.cost < b.cost:
			return -1
		case a.cost > b.cost:
			return 1
		}
		return 0
	})
	return sorted[len(sorted)/2], sorted[0].cost, sorted[len(sorted)-1].cost
}

// print writes a table in Markdown: cost, range, ratio to the base, requests per second and latencies.
func (f figures) print(o options) {
	w := tabwriter.NewWriter(o.Out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| row\t| peer\t| CPU us/request\t| range\t| ratio\t| requests/s\t| p50\t| p99\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, name := range o.Rows {
		base := 0.0
		if values := f[name][o.Base]; len(values) > 0 {
			v, _, _ := median(values)
			base = v.cost
		}
		for _, peer := range o.Peers {
			v, low, high := median(f[name][peer])
			ratio := "-"
			if base > 0 {
				ratio = fmt.Sprintf("%.2f", v.cost/base)
			}
			if name == "idle" {
				fmt.Fprintf(w, "| idle (KiB/connection)\t| %s\t| %.1f\t| %.1f-%.1f\t| %s\t| \t| \t| \t|\n", peer, v.cost, low, high, ratio)
				continue
			}
			fmt.Fprintf(w, "| %s\t| %s\t| %.0f\t| %.0f-%.0f\t| %s\t| %.0f\t| %v\t| %v\t|\n", name, peer, v.cost, low, high, ratio, v.rate,
				v.p50.Round(10*time.Microsecond), v.p99.Round(10*time.Microsecond))
		}
	}
	_ = w.Flush()
	for _, r := range rows() {
		if slices.Contains(o.Rows, r.name) {
			fmt.Fprintf(o.Out, "%s: %s\n", r.name, r.about)
		}
	}
}
