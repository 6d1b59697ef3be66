#!/bin/sh
# Builds strongSwan with its load-tester plugin, which Debian does not package, from Debian's source of the version
# that it does package. Nothing is installed outside of the folder, which is the only argument.
#
#     bench/ike/strongswan.sh /var/tmp/strongswan
#     sallyport-bench ike --peer /var/tmp/strongswan/root/libexec/ipsec/charon
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$folder"
mkdir -p lists/partial cache/archives/partial
# The machine's own sources, of binaries, for sources.
sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >debian.sources
apt="apt-get -o Dir::Etc::sourcelist=$folder/debian.sources -o Dir::Etc::sourceparts=- -o Dir::State::lists=$folder/lists -o Dir::Cache=$folder/cache"
$apt update
$apt source --download-only strongswan || ls strongswan_*.orig.tar.bz2 >/dev/null   # of all that it fetches, only this is needed
tar xf strongswan_*.orig.tar.bz2
cd strongswan-*/
./configure -q --prefix="$folder/root" --sysconfdir="$folder/root/etc" \
	--with-systemdsystemunitdir="$folder/root/systemd" --disable-defaults --enable-silent-rules \
	--enable-charon --enable-ikev2 --enable-vici --enable-swanctl --enable-socket-default --enable-kernel-netlink \
	--enable-load-tester --enable-updown --enable-openssl --enable-aes --enable-aesni --enable-sha1 --enable-sha2 \
	--enable-hmac --enable-kdf --enable-gcm --enable-nonce --enable-random --enable-drbg --enable-curve25519 --enable-gmp \
	--enable-x509 --enable-pubkey --enable-pem --enable-pkcs1 --enable-pkcs8 --enable-constraints --enable-revocation --enable-mgf1
make -s -j"$(nproc)"
make -s install
echo "$folder/root/libexec/ipsec/charon"
