package replication

import (
	"slices"

	"github.com/replblk/replblk/replication/state"
)

// joint is a command about all volumes that is answered when each of them has done its part:
// what an operator, or a handler of the peer, was told of the node must hold for every
// volume after a crash. Owned by Resource.
type joint struct {
	token  uint64
	left   int          // volumes that have not done it yet
	result state.Result // the first that is not a success
}

// begin expects an answer of every volume to the command with that token.
func (r *Resource) begin(token uint64) {
	if token == 0 {
		return // nobody waits
	}
	r.joints = append(r.joints, joint{token: token, left: len(r.vols), result: state.Success})
}

// settled is the answer of one of them.
func (r *Resource) settled(token uint64, result state.Result) {
	i := slices.IndexFunc(r.joints, func(j joint) bool { return j.token == token })
	if i < 0 {
		return // nobody has asked for it
	}
	j := &r.joints[i]
	if j.result.OK() {
		j.result = result
	}
	if j.left--; j.left == 0 {
		r.reply(token, j.result)
		r.joints = slices.Delete(r.joints, i, i+1)
	}
}

// answerDurable answers a command when the superblocks of all volumes, as they are now, are on
// disk.
func (r *Resource) answerDurable(token uint64) {
	r.begin(token)
	for _, v := range r.vols {
		v.afterSuper(answerJoint, token)
	}
}
