// Package acmeclient gets certificates from ACME certificate authorities (RFC 8555). A [Client] speaks with one CA, a [Responder] answers the challenges of
// all of them. It is a library of its own: it knows nothing of proxies, and of its program only a [storage.Store].
//
// # Life of an order
//
// A caller has made a key and a CSR, stored them, and wants a certificate. What then happens:
//
//  1. The request is checked before it costs anything: names that a CA of this kind can issue for, key, CSR, signature
//     (names.go: Client.checkNames, check.go: checkRequest). The whole may take Config.OrderTimeout (obtain.go: Client.Obtain).
//  2. An order for the same CSR may be in progress: of this process before an error, of one that crashed, of another node. It is looked up by the CSR's
//     hash, and if the store does not answer, nothing is ordered (orders.go: orderBook.load, obtain.go: Client.resumeOrBegin). One that its process could not
//     store any more is looked for in the CA's own list, where there may be one (strays.go: Client.findStray, v2orders.go: v2.undecided).
//  3. What the CA has refused until a later time is not asked again before (limits.go: limitBook.check).
//  4. Which ACME the CA speaks was negotiated at the start and is kept up to date in the background, with its directory: v2 first, v1 only on evidence, and
//     never again once v2 was seen (client.go: Client.Start, negotiatewatch.go: negotiator.watch, negotiate.go: negotiator.settle). The decision is a function of
//     what the fleet remembers and of what was just seen (negotiation.go: negotiation.next, negotiationlook.go: classify, negotiationstore.go: negotiator.change).
//     What is spoken is behind one interface; the state machine above it exists once (dialect.go: Client.speaker, Client.speakFor). What v1 lacks is refused before
//     anything is sent (v1.go: v1.refuse).
//  5. The fleet has one account per CA. It is read once, made under a lease if positively absent, and registered again with the same key if the CA
//     lost it (account.go: Client.account, Client.registerUnderLease, Client.replaceLost). A CA that moves from v1 to v2 finds the same key
//     (account.go: Client.introduce, v1account.go: v1.register). Over v2 it may be bound to a customer's (v2account.go: v2.register, eab.go: EAB.bind). Before it
//     is first used, what has changed since is done: contact, terms, a change of its key that was interrupted (care.go: Client.tend).
//  6. If told to, we look first whether the CA could validate the names at all (preflight.go: Client.preflight): whether they lead
//     somewhere (preflightdns.go: Client.locateName), to us (preflighturl.go: Client.askOurselves), and whether their CAA records let the CA issue (caa.go: CheckCAA). The order is placed, over v1 an
//     authorization per name instead, and stored before anything else happens
//     (v2.go: v2.begin, v1authz.go: v1.begin, begin.go: Client.begin, orders.go: orderBook.save). What it may have but need not, a profile or a predecessor, is
//     left out if the CA refuses it (begin.go: Client.mend). It ends in the protocol in which it began (dialect.go: Client.speakerOf). From here on
//     the order's status says what to do next (obtain.go: Client.complete).
//  7. Pending: for each name whose authorization is not valid yet, a challenge is chosen; the type that failed last time comes last
//     (authorize.go: Client.authorize, Client.choose, rotation.order). Wildcards have dns-01 alone (dnschallenge.go: Client.types).
//  8. Its answer is published in memory and in the store (authorize.go: Client.begun, responder.go: Responder.publish). That to dns-01 is noted in the store and
//     written at the name that CNAMEs lead to (dnsplace.go: DNSSolver.locate, dnsrecord.go: DNSSolver.present), and all name servers of the zone must have it
//     (dnspropagation.go: DNSSolver.wait). Then the CA is told (authorize.go: Client.tell).
//  9. The CA asks the zone's name servers, or any node on port 80 or 443 (responder.go: Responder.HTTP, Responder.Certificate).
//  10. We look soon after it did, then more and more rarely, until it has decided (authorize.go: Client.awaitAuthorization, pace.go: pace.nextAuthz). The
//     answer is retracted when it has (responder.go: Responder.retract, dnsrecord.go: DNSSolver.remove); what a crash leaves behind is swept
//     (responder.go: Responder.Sweep, dnsrecord.go: DNSSolver.Sweep).
//  11. Ready: the CSR is sent (finish.go: Client.finalize). Processing: the order is polled as the CA asks, within bounds (finish.go: Client.await).
//  12. Valid: the chain is fetched, over v1 link by link, and checked against key, names and dates before anybody gets it
//     (finish.go: Client.download, v1cert.go: v1.fetch, check.go: checkChain). One that is of no use is looked at again for a while before another is ordered
//     (finish.go: Client.misissued). Another chain may be preferred (chain.go: Client.preferredChain).
//  13. The order is forgotten: it is done, or dead (orders.go: orderBook.forget). One that is undecided stays for the next call with the same CSR, and one that is done until
//     the caller has stored its certificate, if it says so in the request (obtain.go: Client.Forget).
//
// # Afterwards
//
//  14. The CA says when it wants the certificate renewed (ari.go: Client.RenewalInfo, parseRenewalInfo), and the renewal's order says what it replaces, where
//     that can be (check.go: replacedID).
//  15. A certificate is revoked by the account or by its own key (revoke.go: Client.Revoke).
//  16. The account gets a new key; the CA is asked which one counts where a crash leaves that open (keychange.go: Client.RollKey, Client.settle). Nodes
//     that have the old one learn of it when it is refused (keychange.go: Client.rolled).
//
// Below all of it lies the wire: one per CA, it owns connections, nonces, directory and request rate, and it records what the library above it keeps to
// itself (wire.go: wire.RoundTrip, wire.send, nonce.go: noncePool.take).
//
// Whatever goes wrong becomes a [Problem], once: what the CA said, whom it concerns, when to try again, what a person can do
// (errors.go: requestProblem, validationProblem). What it says about later is remembered, for the fleet where it concerns the fleet (limits.go: limitBook.note).
//
// # Libraries
//
// x/crypto/acme speaks for authorizations, challenges, certificates, key changes and revocations, as one cheap acme.Client per operation over the wire: its nonce
// pool, its directory, its retries and its waits are not used. Orders are signed here with go-jose, since x/crypto/acme keeps their Retry-After and lacks `replaces`;
// so are accounts, since it binds by HS256 only and cannot remove a contact; and all of v1, which it has no more. certmagic and its libdns providers write DNS records; whether all servers have them is seen here, since one is enough for
// certmagic, and so is the removal, since certmagic forgets what it made when the process ends.
package acmeclient
