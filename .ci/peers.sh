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
go_peer() { # go_peer PACKAGE VERSION
	local name=${1##*/}
	local dir=$HOME/.cache/gatelodge-peers/$name-$2
	[ -x "$dir/$name" ] || CGO_ENABLED=0 GOBIN=$dir go install -trimpath -ldflags '-s -w' "$1@$2"
	PATH=$dir:$PATH
}
PATH=$PATH:/usr/sbin # where Debian keeps name servers
apt_peers chromium=chromium certutil=libnss3-tools curl=curl openssl=openssl named=bind9 knotd=knot
go_peer github.com/versity/versitygw/cmd/versitygw v1.8.0 # an object store; older ones let several conditional writers win
go_peer github.com/smallstep/certificates/cmd/step-ca v0.30.2 # an ACME CA that nobody here wrote; built once, in minutes
