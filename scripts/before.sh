#!/bin/sh
# Shows a bug on the code before its fix:
#
#	scripts/before.sh FIX [-t] [-o COMMIT:PATH]... -- COMMAND...
#
# runs COMMAND in a copy of the tree as it was before the commit FIX, and succeeds if
# COMMAND fails there. -t puts the tests of FIX itself on top; -o puts the files below
# PATH of another commit on top, for a simulator or a test that came later.
set -eu
fix=$1
shift
root=$(git rev-parse --show-toplevel)
dir=$(mktemp -d)
trap 'git -C "$root" worktree remove --force "$dir" >/dev/null 2>&1; rm -rf "$dir"' EXIT
git -C "$root" worktree add --quiet --detach --force "$dir" "$fix^"
while [ "$1" != -- ]; do
	case $1 in
	-t)
		git -C "$root" diff --name-only --diff-filter=AM "$fix^" "$fix" -- "*_test.go" | xargs git -C "$dir" checkout --quiet "$fix" --
		;;
	-o)
		shift
		git -C "$dir" checkout --quiet "$(git -C "$root" rev-parse "${1%%:*}")" -- "${1#*:}"
		;;
	esac
	shift
done
shift
cd "$dir"
if ! go vet ./... >"$dir.log" 2>&1; then
	echo "does not compile before $fix:" >&2
	head -5 "$dir.log" >&2
	rm -f "$dir.log"
	exit 2
fi
if "$@" >"$dir.log" 2>&1; then
	echo "not shown before $fix: $*" >&2
	rm -f "$dir.log"
	exit 1
fi
echo "shown before $fix: $*"
grep -E -m3 '(FAIL|_test.go:|lost|differ|:  )' "$dir.log" | cut -c1-200 | sed 's/^/	/'
rm -f "$dir.log"
