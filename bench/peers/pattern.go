package main

import "math/rand/v2"

// patternPeriod is a prime, so that a whole message lost or repeated shows.
const patternPeriod = 65521

// makePattern is the text of package bench: the two must agree.
func makePattern(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, n)
	for i := range p {
		if i < patternPeriod {
			p[i] = byte(r.Uint32())
		} else {
			p[i] = p[i-patternPeriod]
		}
	}
	return p
}
