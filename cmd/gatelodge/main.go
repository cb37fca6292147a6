// Command gatelodge is a TLS-terminating reverse proxy that obtains and renews its certificates on demand.
//
// This package joins the rooms: config describes, proxy serves, proxy/certs decides about certificates, acmeclient orders them, storage
// keeps them. serve.go is the only place that knows them all.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	_ "gatelodge/cmd/internal/xconnect" // before net/http
)

// version is set by the linker in releases (-ldflags "-X main.version=v1.2.3").
var version = "devel"

func main() {
	// quic-go would print its advice about UDP buffers past our log; the README gives it.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if err := rootCommand().ExecuteContext(context.Background()); err != nil {
		if !errors.Is(err, errReported) {
			fmt.Fprintln(os.Stderr, "gatelodge:", err)
		}
		os.Exit(1)
	}
}

// errReported ends the program with status 1 when the user has been told why already.
var errReported = errors.New("reported")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "gatelodge",
		Short:         "A TLS-terminating reverse proxy that obtains its certificates on demand",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), checkCommand(), demoCommand(), certsCommand(), reloadCommand(), upgradeCommand(), internalRootCommand(), storageCommand(), acmeCommand(), upstreamsCommand(), passwordCommand())
	return root
}
