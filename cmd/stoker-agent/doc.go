// Stoker-agent holds a login at a Stoker broker and hands the credentials that it
// pushes to the tools on this machine.
//
// Each subcommand is a file. They read flags and the environment, wire packages
// client and client/delivery, and print; nothing else is decided here.
package main
