//go:build cgo

// Command plugin is libtfdrift.so, the Falco plugin: a library that Falco loads.
//
// In comes the plugin's configuration and the URI of CloudTrail records; out go events, in the order of the feed, and
// their ct.* and tf.* fields. Nothing that goes wrong in here reaches Falco as an error, save a wrong configuration or a
// missing path when it starts: Falco would end for all its sources. An event counts as handed over when Falco has asked
// for the next batch.
//
// Build it with go build -buildmode=c-shared. Start reading at shell.go, which converts between Falco's interfaces and
// the packages feed and field, where everything else is.
package main

import "github.com/falcosecurity/plugin-sdk-go/pkg/sdk/plugins"

func init() { plugins.SetFactory(factory()) }

func main() {} // never runs: a shared library has none
