package sim

import (
	"sync"

	"filippo.io/age"

	"github.com/walbaton/walbaton/archiver/seal"
)

// Every fifth cluster encrypts its WAL, and its nodes have only the public key, as nodes are meant to. It does not depend on the seed's
// random numbers, nor do they on it: what is decided is the same but for what nobody there can open.

// identity is what the truth reads with. One will do for all: what is encrypted has the same size each time, and no log shows it.
var identity = sync.OnceValue(func() *age.X25519Identity {
	id, err := age.GenerateX25519Identity()
	must(err)
	return id
})

// recipients are those of the cluster's segments.
func (c *cluster) recipients() []seal.Recipient {
	if c.seed%5 != 0 {
		return nil
	}
	return []seal.Recipient{identity().Recipient()}
}
