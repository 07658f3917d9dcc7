package admission

import (
	"net"
	"net/netip"
	"time"
)

const (
	// maxIdle bounds how many addresses are remembered that have nothing open.
	// Whoever commands more of them gains that some are forgotten.
	maxIdle = 32_768
	// firstSweep is from how many addresses on it is looked for some that need
	// not be remembered.
	firstSweep = 1024
	// Of IPv6 whoever has one address has its whole network.
	hostBits = 64
)

// network is what counts as one address: an IPv4 address, an IPv6 network of
// 64 bits, or, for what is no IP address, everything together.
type network netip.Prefix

func networkOf(a net.Addr) network {
	if a == nil {
		return network{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return network{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = hostBits
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return network{}
	}
	return network(prefix)
}

// addresses counts each address's connections.
type addresses struct {
	most  int
	every time.Duration // between two connections in the long run
	known map[network]*address
	// sweepAt is at how many known addresses the next sweep is due.
	sweepAt int
}

// address is one of them. full is when it may again open as many connections at
// once as it has open at most.
type address struct {
	open int
	full time.Time
}

func newAddresses(most int, perSecond float64) addresses {
	return addresses{
		most: most, every: time.Duration(float64(time.Second) / perSecond), known: map[network]*address{}, sweepAt: firstSweep,
	}
}

// take counts one more connection, or says why not.
func (as *addresses) take(n network, now time.Time) Cause {
	a, ok := as.known[n]
	if !ok {
		as.sweep(now)
		a = &address{}
		as.known[n] = a
	}
	if a.open >= as.most {
		return CauseAddressFull
	}
	full := a.full
	if full.Before(now) {
		full = now
	}
	if full = full.Add(as.every); full.Sub(now) > time.Duration(as.most)*as.every {
		return CauseAddressRate
	}
	a.full = full
	a.open++
	return ""
}

// give takes one connection back.
func (as *addresses) give(n network, now time.Time) {
	a := as.known[n]
	a.open--
	if a.forgettable(now) {
		delete(as.known, n)
	}
}

// forgettable says whether the address would be the same as a new one.
func (a *address) forgettable(now time.Time) bool { return a.open == 0 && !a.full.After(now) }

// sweep forgets the addresses of which there is nothing to remember, each time
// that their number has doubled. So no more are known than twice those that
// have something open and maxIdle together.
func (as *addresses) sweep(now time.Time) {
	if len(as.known) < as.sweepAt {
		return
	}
	idle := 0
	for n, a := range as.known {
		switch {
		case a.forgettable(now):
			delete(as.known, n)
		case a.open == 0:
			idle++
		}
	}
	for n, a := range as.known {
		if idle <= maxIdle {
			break
		}
		if a.open == 0 {
			delete(as.known, n)
			idle--
		}
	}
	as.sweepAt = max(firstSweep, 2*len(as.known))
}
