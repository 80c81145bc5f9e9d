#!/usr/bin/env bash
# Run a Ceph cluster of one machine, in memory, with its S3 gateway: a second server for the tests of
# object stores.
#   apt-get install --no-install-recommends ceph-common ceph-mon ceph-osd radosgw        # as root
#   tests/objects/ceph.sh up && MELMILL_OBJECT_SERVER=17480 pytest tests/objects tests/storage; tests/objects/ceph.sh down
# It listens on loopback alone.
set -euo pipefail

FOLDER=${CEPH_FOLDER:-/tmp/melmill-ceph}
MONITOR=v2:127.0.0.1:13300
PORT=17480
AS_ROOT=(--setuser root --setgroup root)

configuration() {
	cat <<-END
		[global]
		fsid = $1
		mon host = $MONITOR
		auth cluster required = none
		auth service required = none
		auth client required = none
		ms mon client mode = crc
		public addr = 127.0.0.1
		cluster addr = 127.0.0.1
		osd pool default size = 1
		osd pool default min size = 1
		osd pool default pg num = 4
		osd pool default pg autoscale mode = off
		osd crush chooseleaf type = 0
		osd objectstore = memstore
		memstore device bytes = 2147483648
		mon allow pool size one = true
		mon max pg per osd = 1000
		keyring = $FOLDER/keyring
		mon data = $FOLDER/mon
		osd data = $FOLDER/osd
		rgw data = $FOLDER/rgw
		rgw frontends = beast endpoint=127.0.0.1:$PORT
		run dir = $FOLDER
		admin socket = $FOLDER/\$name.asok
		log file = $FOLDER/\$name.log
		pid file = $FOLDER/\$name.pid
	END
}

up() {
	down
	mkdir -p "$FOLDER"/{mon,osd,rgw}
	local fsid osd
	fsid=$(cat /proc/sys/kernel/random/uuid)
	osd=$(cat /proc/sys/kernel/random/uuid)
	configuration "$fsid" >"$CEPH_CONF"
	touch "$FOLDER/keyring"
	monmaptool --create --fsid "$fsid" --addv a "[$MONITOR]" "$FOLDER/monmap"
	ceph-mon --mkfs -i a --monmap "$FOLDER/monmap" "${AS_ROOT[@]}"
	ceph-mon -i a "${AS_ROOT[@]}"
	ceph osd new "$osd"
	ceph-osd -i 0 --mkfs --osd-uuid "$osd" "${AS_ROOT[@]}"
	ceph-osd -i 0 "${AS_ROOT[@]}"
	ceph osd crush add osd.0 1.0 root=default host=here
	# The keys that the tests use.
	radosgw-admin user create --uid=tests --display-name=tests \
		--access-key=AKIDOFTHETESTS --secret-key=w2Lz-the-secret-of-the-tests-8QbT >"$FOLDER/user.json"
	radosgw -n client.admin --no-mon-config "${AS_ROOT[@]}"
	for _ in $(seq 60); do
		curl --silent --fail --output /dev/null "http://127.0.0.1:$PORT/" && break
		sleep 1
	done
	curl --silent --show-error --fail --output /dev/null "http://127.0.0.1:$PORT/"
	echo "S3 at http://127.0.0.1:$PORT"
}

down() {
	local file
	for file in "$FOLDER"/*.pid; do
		[ -e "$file" ] && kill "$(cat "$file")" 2>/dev/null && tail --pid="$(cat "$file")" -f /dev/null
	done
	rm -rf "$FOLDER"
}

export CEPH_CONF=$FOLDER/ceph.conf
case "${1:-}" in
up | down) "$1" ;;
*) echo "usage: $0 up|down" >&2; exit 2 ;;
esac
