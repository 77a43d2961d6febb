//go:build linux

package loop

import (
	"fmt"
	"slices"
	"testing"

	"couplet"
)

// A block is overwritten or used again only when nobody holds a piece of it.
func TestABlockIsHeldByItsPieces(t *testing.T) {
	pool := Blocks{Size: 64}
	b := pool.Get()
	if b.Held() {
		t.Fatal("a fresh block is held")
	}
	one, two := b.Piece(b.Memory[:8]), b.Piece(b.Memory[8:10])
	one.Retain()
	one.Release()
	if two.Len() != 2 || &two.Bytes()[0] != &b.Memory[8] {
		t.Error("a piece is a copy, or another part")
	}
	two.Release()
	if !b.Held() {
		t.Error("with one piece of two released, the block is free")
	}
	one.Release()
	if b.Held() {
		t.Error("with both pieces released, the block is held")
	}
	last := b.Piece(b.Memory)
	b.Release() // the driver has done with it, the piece has not
	if c := pool.Get(); c == b {
		t.Error("a block that is held was given out again")
	}
	last.Release()
}

// The Buffer of a piece is used again; in builds that look for misuse it is not,
// so that a second Release is found out.
func TestAPieceCostsNothing(t *testing.T) {
	pool := Blocks{Size: 64}
	b := pool.Get()
	if checked {
		p := b.Piece(b.Memory)
		p.Release()
		defer func() {
			if recover() == nil {
				t.Error("a second Release went unnoticed")
			}
		}()
		p.Release()
		return
	}
	if n := testing.AllocsPerRun(1000, func() { b.Piece(b.Memory).Release() }); n > 0.01 {
		t.Errorf("%v allocations per piece", n)
	}
}

// While one piece is held, no other is given its Buffer; with the last gone they are given
// out again.
func TestAHeldPieceKeepsItsBuffer(t *testing.T) {
	pool := Blocks{Size: 64}
	b := pool.Get()
	for range 3 {
		held := make([]*couplet.Buffer, 40)
		for i := range held {
			held[i] = b.Piece(b.Memory[i : i+1])
			if i%2 == 1 {
				held[i].Release()
			}
		}
		for i := 0; i < len(held); i += 2 {
			if p := held[i].Bytes(); len(p) != 1 || &p[0] != &b.Memory[i] {
				t.Fatalf("piece %d is another", i)
			}
			held[i].Release()
		}
		if b.Held() {
			t.Fatal("with all pieces released, the block is held")
		}
	}
	if n := len(b.pieces); !checked && n != 3 {
		t.Errorf("40 pieces at a time take %d times 16 Buffers", n)
	}
}

// Who holds one piece for long had the block grow with every message of the others.
func TestAHeldPieceMadeItsBlockGrow(t *testing.T) {
	pool := Blocks{Size: 64}
	b := pool.Get()
	held := b.Piece(b.Memory[:1])
	for range 100 * maxPieces {
		p := b.Piece(b.Memory[1:2])
		if p.Len() != 1 || &p.Bytes()[0] != &b.Memory[1] || !b.Held() {
			t.Fatal("a piece is another")
		}
		p.Release()
	}
	if n := 16 * len(b.pieces); n > maxPieces {
		t.Errorf("the block has %d Buffers", n)
	}
	if held.Release(); b.Held() {
		t.Error("with all pieces released, the block is held")
	}
}

// What is much leaves when a driver asks, and not only with the turn's end; what
// is little waits to leave with the rest.
func TestPushSendsOnlyMuch(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	b.calls = nil
	b.turn(func() {
		c.Write(make([]byte, Bulk-1))
		b.loop.Push(c)
		if len(b.calls) > 0 {
			t.Error("little was sent before the turn's end")
		}
		c.Write([]byte{1})
		b.loop.Push(c)
		if !slices.Equal(b.calls, []string{fmt.Sprintf("send %d", Bulk)}) {
			t.Error("much was not sent at once")
		}
		b.calls = nil
		c.Write(make([]byte, Bulk))
		b.loop.Push(c)
	})
	if len(b.calls) > 0 {
		t.Errorf("a second send while one was in flight: %q", b.calls)
	}
}
