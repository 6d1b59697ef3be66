package repocheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// features are the rows of the README's table of what is supported, by their first words, with the tests that show each: as in hazards, or scenarios of the
// interoperability runs behind "scenario". Rows that say no need none.
var features = map[string]string{
	"ESP (RFC 4303), tunnel mode":   "dataplane TestPacketsCrossTheTunnel, dataplane/esp TestRoundTrip, TestOpensWhatScapySealed, TestScapyOpensWhatWeSealed, scenario families, nat",
	"ESP, transport mode":           "dataplane TestOwnTrafficInTransportMode, TestTransportModeRefusesByName, TestTransportModeIsCutAfterEncryption, dataplane/esp TestTransportKeepsTheDatagram, TestChecksumsBehindNAT, TestTransportOfScapy, tools/failclosed TestGatewaysTalkInTransportMode",
	"Suites":                        "dataplane/transform TestEverySuiteAgainstReference, cmd/sallyportd TestNegotiatedSuitesAreThoseOfTheDataPlane, tools/hosttest TestEverySuiteThatIKEAgreesOn, scenario suites",
	"Anti-replay":                   "dataplane/replay TestWindowAgreesWithSet, TestSizesAreTakenExactly, dataplane/esp TestExtendedSequenceNumberCrosses32Bits, cmd/internal/config TestTenLinesMakeATunnelWithSafeDefaults",
	"GRE":                           "dataplane/esp TestGREOverESP, TestGREOfScapy, TestGREHeadersThatAreRefused, tools/failclosed TestGREAndIPInIPThroughInterfaces, tools/hosttest TestGREWithAnotherImplementation",
	"Route-based interfaces":        "dataplane TestRoutesLeadIntoAnInterface, TestInterfacesHaveTheirOwnPolicies, tools/failclosed TestRoutesDecideThroughInterfaces, TestDeletedDevicesAreMadeAgain, tools/hosttest TestPingAndTraceroute, scenario routes",
	"Policies":                      "dataplane TestPoliciesAreOrdered, dataplane/spd TestTableAgreesWithScan",
	"Filters and rate limits":       "dataplane TestFilterDecidesByTheFirstRuleThatMatches, TestFilterAgreesWithALoop, TestRateLimitLetsTheRateThrough, cmd/internal/config TestFiltersAndLimitsReachBothKindsOfAssociations, tools/hosttest TestFiltersLimitsAndWhatTheyShow",
	"Lifetimes":                     "dataplane TestLifetimes, TestHardBoundHoldsWithoutAnyoneListening, TestSequenceSpaceEndsHard, scenario rekey-timed, rekey-volume",
	"ECN":                           "dataplane TestFixedDSCP, TestAdoptedDSCP, TestOuterTTL, TestDontFragmentIsKept, TestSYNsAreFittedToTheTunnel, dataplane/esp TestTOSAndDF, TestECNAlarmsAreCounted, cmd/internal/config TestOuterHeaderChoices",
	"Traffic flow confidentiality":  "dataplane TestPaddingHidesLengths, dataplane/esp TestAuthenticatedButMalformed, cmd/sallyportd TestPaddingIsForPeersThatTakeIt, ike/ikesa TestPeerThatTakesNoPadding",
	"What is too large":             "dataplane TestTooBigIsAnswered, TestFragmentsCrossTheTunnel, TestCutAfterEncryption, TestDontFragmentIsKept, TestSmallestIPv6PacketAlwaysPasses, TestKernelPutsCutPacketsTogether",
	"Path MTU":                      "dataplane TestPathMTUIsLearned, TestPathMTUOnlyFalls, TestLiesAboutThePathAreNotBelieved, dataplane/sad TestProbedPathMTU, ike/ikesa TestPeerThatIgnoresProbesStaysUp, ike TestTunnelsOfOnePathNeedOneSearch, TestSearchesOfManyPathsAreSpread, tools/failclosed TestBlackHoleOfThePathIsFound, scenario black-hole, black-hole-unprobed",
	"Errors on the way to the peer": "dataplane TestUnreachablePeersAreReported, TestErrorsAboutESPAreLimited",
	"IKEv2":                         "ike/ikesa TestScripts, TestHandshakeOnBadNetworks, ike TestLargeMessagesTravelInFragments, TestVirtualAddressesComeFromThePool, scenario psk, certificates, revocation, ocsp, fragmentation, mobike, childless, virtual-ip-for-sallyport, cookies-at-sallyport",
	"Post-quantum":                  "ike/suite TestMLKEMWycheproof, TestDefaultsAreHybridFirst, TestKeyScheduleIsThatOfRFC9370",
	"AH (RFC 4302)":                 "dataplane TestAHCrosses, dataplane/esp TestAHCarries, TestAHOfScapy, TestEveryDamagedByteOfAHIsRefused, tools/failclosed TestHostsTalkByAH",
	"AH and ESP on one packet":      "dataplane TestBundlesCross, TestHalfABundleIsRefused, dataplane/esp TestBundleOfScapy, tools/failclosed TestHostsTalkByAHAroundESP",
	"Fragments of ESP packets":      "dataplane TestOuterFragmentsArePutTogether, TestBadOuterFragmentsEndByName, dataplane/ipfrag TestEveryOrderIsPutTogether, TestOverlapsEndTheDatagram, TestTimeEndsWhatIsNotWhole, TestFloodsLeaveOthersTheirShare, TestLargeAndManyAreRefused",
	"Later fragments":               "dataplane TestLaterFragmentsFollowTheFirst, TestFragmentsForOtherPortsStayOutside, dataplane/ipfrag TestPortsAreThoseOfTheFirst",
	"ICMP errors from routers":      "dataplane TestRoutersErrorsCrossTheTunnel, tools/hosttest TestPingAndTraceroute",
	"Multicast of inner packets":    "dataplane TestMulticastCrossesTheTunnel, TestMulticastThatEndsHere",
	"VLAN tags":                     "bpf TestSteerSitePolicy, dataplane TestVLANInterfacesAreRefused, dataplane/forward TestWriteEthernetStripsTagAndPadding",
	"Jumbo frames":                  "tools/wiretest TestJumboInterfaceIsRefused, dataplane/xsk TestMTUMaxKeepsSlackBehindThePacket",
}

// TestEveryFeatureHasItsTests goes through the README's table: what it says is supported is shown by tests that exist.
func TestEveryFeatureHasItsTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "\n## What is and what is not supported today\n")
	table, _, _ = strings.Cut(table, "\n#")
	rows := 0
	known := map[string]map[string]bool{} // tests by folder
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 2 || strings.HasPrefix(cells[1], "no:") || strings.HasPrefix(cells[1], "not yet:") || strings.HasPrefix(cells[0], "---") {
			continue
		}
		rows++
		tests := ""
		for first, list := range features {
			if strings.HasPrefix(cells[0], first) {
				tests = list
			}
		}
		if tests == "" {
			t.Errorf("nothing shows what the README says of %q: add its tests to features", cells[0])
			continue
		}
		folder := ""
		for _, name := range strings.Split(tests, ", ") {
			if in, test, ok := strings.Cut(name, " "); ok {
				folder, name = in, test
			}
			if folder == "scenario" {
				if _, err := os.Stat(filepath.Join(root, "tools/interop/scenarios", name, "expect.yaml")); err != nil {
					t.Errorf("%s: %v", cells[0], err)
				}
				continue
			}
			if known[folder] == nil {
				known[folder] = testsIn(t, folder)
			}
			if !known[folder][name] {
				t.Errorf("%s: %s has no %s", cells[0], folder, name)
			}
		}
	}
	if !ok || rows < 20 {
		t.Errorf("the table of the README has only %d rows that promise something", rows)
	}
}
