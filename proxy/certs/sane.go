package certs

import (
	"slices"
	"strings"

	"gatelodge/proxy/hostname"
)

// sane reports whether a stranger's name can be one that a CA would certify, so that an order for it is not lost from the start. It holds for
// on-demand names only; what a site lists is its owner's business.
//
// Public CAs want a name with at least two labels of letters, digits and hyphens (CA/Browser Forum baseline requirements
// 7.1.4.2.1). A CA of our own (see rules.private) also takes single labels and addresses.
func sane(name string, private bool) bool {
	if hostname.IsIP(name) {
		return private
	}
	labels := strings.Split(name, ".")
	if strings.Contains(name, "_") || len(labels) < 2 && !private {
		return false
	}
	return !recursive(labels)
}

// recursive reports whether the name looks like one that a wildcard DNS record and a scanner made up: four or more labels with two equal ones in
// a row, or three service names in a row. Let's Encrypt refuses such names (rejectedIdentifier), and each refusal counts against us.
func recursive(labels []string) bool {
	services := 0
	for i, label := range labels {
		if len(labels) >= 4 && i > 0 && label == labels[i-1] {
			return true
		}
		if services++; !slices.Contains(serviceLabels(), label) {
			services = 0
		}
		if services == 3 {
			return true
		}
	}
	return false
}

// serviceLabels are the labels that scanners and hosting panels put before a name that has them already.
func serviceLabels() []string {
	return []string{"www", "mail", "webmail", "ftp", "smtp", "pop", "imap", "autodiscover", "autoconfig", "cpanel", "whm", "webdisk", "ns1", "ns2", "m", "mta-sts"}
}
