# Installs the programs that tests with -tags peers talk to, at pinned versions. Sourced by .ci/run; sets PATH. Debian's packages carry
# the distribution's version; what is built by Go lies in a folder named by its version, so that a second run builds nothing.
apt_peers() { # apt_peers COMMAND=PACKAGE...
	local missing=() pair
	for pair; do
		command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	local sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
}
go_peer() { # go_peer PACKAGE VERSION [NAME]: NAME where the package's own says too little
	local own=${1##*/}
	local name=${3:-$own}
	local dir=$HOME/.cache/gatelodge-peers/$name-$2
	if [ ! -x "$dir/$name" ]; then
		CGO_ENABLED=0 GOBIN=$dir go install -trimpath -ldflags '-s -w' "$1@$2"
		[ "$own" = "$name" ] || mv "$dir/$own" "$dir/$name"
	fi
	PATH=$dir:$PATH
}
PATH=$PATH:/usr/sbin # where Debian keeps name servers
apt_peers chromium=chromium certutil=libnss3-tools curl=curl openssl=openssl named=bind9 knotd=knot nginx=nginx haproxy=haproxy
go_peer github.com/versity/versitygw/cmd/versitygw v1.8.0 # an object store; older ones let several conditional writers win
go_peer github.com/smallstep/certificates/cmd/step-ca v0.30.2 # an ACME CA that nobody here wrote; built once, in minutes
go_peer github.com/summerwind/h2spec/cmd/h2spec v2.2.1+incompatible
go_peer google.golang.org/grpc/interop/client v1.85.0 grpc-interop-client
go_peer google.golang.org/grpc/interop/server v1.85.0 grpc-interop-server
go_peer github.com/caddyserver/caddy/v2/cmd/caddy v2.11.9 # to be compared with
