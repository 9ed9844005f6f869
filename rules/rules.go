// Package rules holds what Falco is given: the rules over the plugin's events, and the drop-in configuration that loads
// both. The files lie here as Falco reads them and are embedded as they are; nothing is computed.
//
// The rules guarantee that every mutating CloudTrail record gives exactly one alert under `rule_matching: first`, and a
// reading one none. The tests run every rule in a real libsinsp host. Start reading at tfdrift_rules.yaml.
package rules

import _ "embed"

// File is tfdrift_rules.yaml. It must not be changed.
//
//go:embed tfdrift_rules.yaml
var File []byte

// DropIn is config.d/tfdrift.yaml. It must not be changed.
//
//go:embed config.d/tfdrift.yaml
var DropIn []byte
