// Package partner finds the programs that tests run against: a database, an
// object store, a backup tool.
//
// It owns the one rule about a partner that is not installed: on a developer's
// machine the test is skipped and says so, where the environment variable CI
// is true it fails, so that no pipeline is green without having tried. It owns
// the choice of ports for them, too. It never starts, installs or configures a
// program, and only tests import it.
package partner
