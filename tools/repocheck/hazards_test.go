package repocheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hazards are what breaks the packet path of IPsec gateways, with the rule that prevents it and the tests that hold it here.
var hazards = []struct{ hazard, rule, tests string }{
	{"an IV of a counter mode used twice under a key", "RFC 4106, 3.1: the 64-bit sequence number is the IV, of one allocator an association",
		"dataplane/esp TestSequenceNumbersNeverCycle, dataplane TestNoNonceTwiceWhoeverSends, TestEndpointsMoveWithoutLosingCount"},
	{"a restart goes on with old keys from number 1", "keys and counters end with their process; no file holds either", "tools/failclosed TestRestartRepeatsNoNonce"},
	{"manual keys with a counter mode", "RFC 8221, 3: only behind a word that says so, and with a warning", "cmd/internal/config TestFaultsAreNamedWithTheirPlace, cmd/sallyportd TestDaemonRunsReloadsAndStops"},
	{"whoever takes over sends numbers again", "a reservation is behind all that may have been sent", "dataplane TestTakeOverBeginsBehindTheReservation, TestNoNonceTwiceWhoeverSends"},
	{"the sequence numbers run out", "RFC 4303, 3.3.3: they never cycle; a rekey is asked for before", "dataplane TestSequenceSpaceEndsHard, TestShortSequenceNumbersRunningOutAreTold, dataplane/sad TestSequenceRunsOut"},
	{"more data under a key than it is good for", "lifetimes in bytes and packets beside time", "dataplane TestLifetimes, TestHardBoundHoldsWithoutAnyoneListening"},
	{"a forged packet moves the replay window", "RFC 4303, 3.4.3: check, authenticate, then advance", "dataplane/replay TestForgedPacketMovesNothing"},
	{"two copies of a packet in one batch", "the window is asked again behind authentication, in order", "dataplane/replay TestDuplicatesInOneBatchAreCaught, dataplane/esp TestDuplicatesSideBySideInOneBatch, TestMixtureWithDuplicatesInOneBatch"},
	{"the upper half of a sequence number is guessed wrong", "RFC 4303, appendix A2.2; 12 bytes of additional data by RFC 4106, 5", "dataplane/replay TestInferenceByTheAppendix, TestInferenceAgreesWithSearch, dataplane/transform TestGCMInESPWithExtendedSequenceNumber"},
	{"workers share a window without order", "one owner an association; it moves between batches", "dataplane TestOwnersMove, dataplane/sad TestOwnershipMovesOnlyByItsOwner"},
	{"a window too small for packets out of order", "4096 by default, up to 65536", "dataplane/replay TestSizesAreTakenExactly, TestWindowAgreesWithSet, cmd/internal/config TestTenLinesMakeATunnelWithSafeDefaults"},
	{"tags compared in time that tells where they differ", "whole words, every byte refused alike", "dataplane/aesgcm TestEveryWrongByteIsRefusedAndWiped, dataplane/transform TestEveryWrongByteIsRefused"},
	{"plaintext that is not authentic is seen", "it is wiped or never made", "dataplane TestUnauthenticPlaintextIsNowhere, dataplane/aesgcm TestEveryWrongByteIsRefusedAndWiped"},
	{"plaintext leaks on a crash, a reload, without keys", "fail closed", "tools/failclosed TestKilledAtRandomMoments, TestNothingLeaksThroughAnyChange, TestTunnelForEverything, bpf TestKilledProcessLeaksNothingAndIsTakenOver, dataplane TestNoAssociationFailsClosed"},
	{"a peer sends what its selectors do not allow", "RFC 4301, 5.2, step 4", "tools/wiretest TestEveryBadPacketEndsInOneCounter, dataplane TestPeerCannotSmuggleByFragments"},
	{"cleartext is taken for a protected prefix", "RFC 4301, 5.2", "tools/wiretest TestEveryBadPacketEndsInOneCounter, dataplane TestTransportModeAndCleartext"},
	{"a malformed trailer or inner header", "RFC 4303, 2.4 to 2.6: bounds are looked at behind authentication", "dataplane/esp TestAuthenticatedButMalformed, tools/wiretest TestEveryBadPacketEndsInOneCounter"},
	{"dummies and padding for traffic flow confidentiality", "RFC 4303, 2.6 and 2.7", "dataplane/esp TestAuthenticatedButMalformed, tools/wiretest TestEveryBadPacketEndsInOneCounter"},
	{"ECN, DSCP, DF, TTL", "RFC 6040; RFC 4301, 5.1.2", "dataplane/packet TestDecapsulationIsTheTableOfRFC6040, dataplane/esp TestTOSAndDF, dataplane TestTimeExceededReachesTheSender"},
	{"ICMP errors that lie about the path", "RFC 4301, 8.2; RFC 8201: live associations only, with a floor, for a while", "dataplane TestLiesAboutThePathAreNotBelieved, TestPathMTUOnlyFalls, TestErrorsAboutESPAreLimited"},
	{"outer fragments", "reassembly within limits of memory and time; nothing waits for it", "dataplane TestBadOuterFragmentsEndByName, TestTooManyFragments, dataplane/ipfrag TestOverlapsEndTheDatagram"},
	{"SPIs that can be foreseen", "a keyed permutation; and nothing rests on it", "dataplane/sad TestPermutationIsOneToOneAboveTheReserved, TestStaleNamesFindNothing"},
	{"the old association vanishes too early in a rekey", "RFC 7296, 2.8: grace", "dataplane TestRetiredInboundReceivesUntilItsGraceIsOver, TestRekeyLosesNothingOnItsWayBetweenWorkers"},
	{"keys in a core dump, in swap, in /proc", "not dumpable; key memory is outside the heap, locked, wiped", "tools/failclosed TestKeysAreNobodysToRead, dataplane/offheap TestNothingOfItLeavesTheProcess, dataplane/transform TestZeroLeavesNothing"},
	{"a frame used after it was given back", "one owner a frame; all are counted at the end", "dataplane/xsk TestLedgerKeepsOneOwnerPerFrame, TestACorruptCompletionGivesNoFrameTwice, dataplane TestStopUnderLoadReturnsEveryFrame"},
	{"a key wiped or used again under a worker", "an epoch a worker; packets carry the SPI, never a pointer", "dataplane/sad TestKeyOutlivesRemovalUntilWorkersPass, TestModelUnderReaders, dataplane/esp TestRemovedKeySendsNothing"},
	{"IVs of CBC that can be foreseen", "RFC 3602, 3: an encrypted counter", "dataplane/transform TestCBCIVDependsOnMoreThanCounter"},
	{"a UDP checksum of zero over IPv6 that somebody refuses", "RFC 6935: computed, unless the configuration says not to", "dataplane TestUDPChecksumOverIPv6"},
	{"program or fence missing behind a re-created interface, at the start, after a stop", "fail closed there too", "tools/failclosed TestNothingLeaksThroughAnyChange, cmd/sallyportd TestStartFencesBeforeAnythingElse, dataplane/keeper TestFenceHoldsWhenTUNVanishes"},
	{"a flood of ESP starves IKE", "a socket and a budget of its own", "bench/ike TestKeyExchangeLivesThroughAnOverload, dataplane TestIKELeavesAheadOfAFlood, TestFullRingOfPacketsLeavesRoomForIKE"},
}

// dangers are what breaks the key exchange, likewise.
var dangers = []struct{ hazard, rule, tests string }{
	{"a flood of half-open IKE SAs", "RFC 7296, 2.6: cookies without state, secrets that turn; limits by address and altogether",
		"ike TestFloodIsAnsweredWithCookiesAndLeavesNothing, TestOneAddressCannotHoldMoreThanItsShare, TestManyClientsBehindOneAddress, TestHonestInitiatorGetsThroughAFlood, TestCookieIsGoodForItsInitiatorOnlyAndForTwoSecrets"},
	{"answers larger or more than what was asked", "RFC 7296, 2.1: an answer a request, and few to strangers", "ike TestFloodIsAnsweredWithCookiesAndLeavesNothing, TestUnauthenticatedAnswersAreLimited, TestGateNamesEverythingItDrops"},
	{"a notify that is not authenticated ends an IKE SA", "RFC 7296, 2.4 and 2.21: it is a hint to ask the peer", "ike/ikesa TestClearNotifiesOnlyMakeUsAsk, ike TestNobodyKillsATunnelFromOutside"},
	{"the first answer to IKE_SA_INIT is a forger's", "RFC 7296, 2.21.1: others are followed, AUTH decides",
		"ike/ikesa TestForgedFirstAnswersDoNotWin, TestForgerThatFailsDoesNotEndTheHandshake, TestForgedAnswersAreBounded, TestForgedErrorDoesNotEndTheHandshake, ike TestForgedAnswersDoNotStopAnInitiator"},
	{"a downgrade", "AUTH covers IKE_SA_INIT; no method that we did not offer", "ike/ikesa TestChangedInitFailsAuthentication, TestHashesAreNotDowngraded, ike/suite TestOnlyOwnGroupsMayBeAskedFor"},
	{"messages replayed or out of the window", "RFC 7296, 2.2 and 2.3: the last answer again, others before any work", "ike/ikesa TestReplayChangesNothing, ike TestNobodyKillsATunnelFromOutside"},
	{"retransmissions without end", "bounded, further and further apart, not all at once", "ike/ikesa TestRetransmissionBacksOffAndEnds, ike TestRetransmissionIsBoundedAndBacksOff"},
	{"fragments that fill memory or replace others", "RFC 7383: each authenticated, few, for a while", "ike/ikesa TestFragmentsAreAuthenticatedOneByOne, ike/message TestReassemblerIsBounded, ike TestLargeMessagesTravelInFragments"},
	{"bad public values", "RFC 6989, RFC 8031", "ike/ikesa TestBadKeyExchangeValues, ike/suite TestPointsOffTheCurveAreRefused, TestMODPValuesOutOfRangeAreRefused, TestX25519Wycheproof, TestMLKEMEncapsulationKeysAreChecked"},
	{"forged signatures, weak keys", "the standard library verifies; RFC 7427: algorithm, key and policy fit", "ike/auth TestSignaturesVerifyAndNothingElseDoes, TestWeakSignaturesAreRefused, TestSchemesLimitSignatures, ike/ikesa TestMethodIsTheConfiguredOne, TestWeakKeyProvesNothing"},
	{"an identity that is not the certificate's", "it is one of the certificate's names, and the configured one", "ike/auth TestChainsAreTrustedAndNameThePeer, ike/ikesa TestWrongCertificatesAreRefused"},
	{"EAP with a responder that has not authenticated itself", "RFC 7296, 2.16; it is not spoken", "ike/ikesa TestEAPIsRefused"},
	{"a weak preshared key guessed at leisure", "refused by sallyport check", "ike/auth TestWeakSecretsAreRefused, TestPSKAuthIsTheFormulaOfTheRFC"},
	{"a key that IKEv1 uses, too", "no IKEv1", "ike TestGateNamesEverythingItDrops"},
	{"our own messages come back", "direction, nonce and identity tell", "ike/ikesa TestReflectedMessagesAreDropped, TestOwnIdentityIsRefused"},
	{"an initiator that vanishes behind IKE_AUTH", "half-open until it has answered", "ike/ikesa TestUnconfirmedResponderAsksAndGoes, TestHalfOpenEndsWhereverThePeerStops"},
	{"rekey, delete and reauthentication at once", "RFC 7296, 2.8.1 and 2.25", "ike/ikesa TestCollisionsInEveryOrder, TestTwoHostsAgreeAfterEveryOrder, TestOrdersThatFailedOnce, TestLoserOfACollisionThatThePeerForgot, ike TestTunnelsSurviveABadNetwork"},
	{"INITIAL_CONTACT of a stranger", "of an authenticated peer, for its identity", "ike/ikesa TestInitialContactNeedsAuthentication, ike TestInitialContactCountsForItsIdentityOnly"},
	{"narrowing that widens", "the intersection", "ike/ikesa TestNarrowIsTheIntersection, TestNarrowIsBounded, TestWiderAnswerIsRefused"},
	{"parsing without end", "limits; nothing of length zero loops", "ike/message TestLimitsHoldAtTheirEdge, FuzzParse, FuzzPayload, ike TestCookieIsLookedForWhereItMustBe, ike/suite TestDescriptionsOfOffersAreBounded"},
	{"a message in a state that nobody thought of", "a table of exchanges by state", "ike/ikesa TestEveryExchangeInEveryState, FuzzReceive, ike/message TestEveryRowOfTheTableHolds"},
	{"a forged packet moves the endpoint", "RFC 7296, 2.23; RFC 4555, 3.7", "ike/ikesa TestOnlyTheNewestAuthenticPacketMovesThePeer, ike TestNobodyKillsATunnelFromOutside"},
	{"the clock is set", "lifetimes by the monotonic clock, certificates by the wall clock", "ike/ikesa TestClockJumpsMoveNoTimer, TestClockJumpsMoveCertificates"},
	{"all rekey at once", "jitter, and a rate", "ike TestRekeysOfManyTunnelsAreSpread"},
}

// TestEveryHazardHasItsTests looks for each named test where it is said to be.
func TestEveryHazardHasItsTests(t *testing.T) {
	known := map[string]map[string]bool{} // tests by folder
	for _, h := range slices.Concat(hazards, dangers) {
		folder := ""
		for _, name := range strings.Split(h.tests, ", ") {
			if in, test, ok := strings.Cut(name, " "); ok {
				folder, name = in, test
			}
			if known[folder] == nil {
				known[folder] = testsIn(t, folder)
			}
			if !known[folder][name] {
				t.Errorf("%s: %s has no %s", h.hazard, folder, name)
			}
		}
	}
}

// testsIn returns the names of the tests in a folder.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[f.Name.Name] = true
			}
		}
	}
	return tests
}
