package bench

import "time"

// The parts of its lifetime at which a credential is renewed: drawn uniformly.
const (
	earliestRenewal = 0.50
	latestRenewal   = 0.65
	meanAge         = (earliestRenewal + latestRenewal) / 2
)

// ageOver is the share of leases in a steady state whose credential is older
// than a part of its lifetime. Ages are uniform up to the earliest renewal, and
// thin out to none at the latest.
func ageOver(part float64) float64 {
	switch {
	case part <= 0:
		return 1
	case part <= earliestRenewal:
		return 1 - part/meanAge
	case part < latestRenewal:
		left := latestRenewal - part
		return left * left / (2 * (latestRenewal - earliestRenewal) * meanAge)
	}
	return 0
}

// lostShare is the share of leases whose credential ends within an outage that
// lasts so many lifetimes.
func lostShare(outage float64) float64 { return ageOver(1 - outage) }

// dueShare is the share of leases that fall due within an outage that lasts so
// many lifetimes. What is left until a renewal is spread as ages are.
func dueShare(outage float64) float64 { return 1 - ageOver(outage) }

// recoveryTime is how long it takes to supply the leases that are due, at so
// many calls a second, while others fall due at the demand. What is renewed is
// not due again before half of its life, so that it never takes longer than
// serving every lease once.
func recoveryTime(due, leases, rate, demand float64) time.Duration {
	seconds := leases / rate
	if rate > demand {
		seconds = min(seconds, due/(rate-demand))
	}
	return time.Duration(seconds * float64(time.Second))
}
