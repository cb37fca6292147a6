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
apt_peers chromium=chromium certutil=libnss3-tools curl=curl openssl=openssl
