package bench

import (
	"math/rand/v2"
	"sync"
)

// patternPeriod is a prime, so that a whole message lost or repeated shows.
const patternPeriod = 65521

// span is the most bytes that at gives in one piece.
const span = 256 << 10

var pattern = sync.OnceValue(func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, patternPeriod+span)
	for i := range p {
		if i < patternPeriod {
			p[i] = byte(r.Uint32())
		} else {
			p[i] = p[i-patternPeriod]
		}
	}
	return p
})

// at is up to n bytes of what a connection carries from position off on.
func at(off int64, n int) []byte {
	o := int(off % patternPeriod)
	return pattern()[o : o+min(n, span)]
}
