// Package certs decides which certificate a handshake is served with, obtains certificates on demand and renews them.
//
// # Life of a certificate
//
//  1. A client says hello. The SNI is brought into canonical form, once; a CA that validates (ALPN exactly acme-tls/1)
//     is answered with its challenge and nothing else. (handshake.go: Manager.GetCertificate, rules.host)
//  2. If memory has what the host is served with, that is the end of it: one look into a table, no lock, no allocation, nobody asked. A host may have a second
//     certificate, for clients that cannot use the key of the main one; their hello says so. (cache.go: cache.serve) (second.go: rules.wantsSecond)
//     (keytype.go: keyType.usableBy)
//     Memory holds certificates packed, and those in demand ready for handshakes too; the budget decides how many. (pack.go: pack) (hot.go: cache.ready)
//     (evict.go: cache.evictLocked)
//  3. Else the same lookup that routes requests says which site claims the host and what its certificate is for: the host, a listed
//     wildcard, or a file of the site's own. Who is not claimed gets no certificate at all. (rules.go: rules.resolve)
//     (static.go: filePair.refresh)
//  4. What memory alone can refuse is refused: names that no CA would certify, names denied or held back a moment ago. Clients that
//     bring one unknown name after the other are cut off before anybody else hears of them. (inquire.go: Manager.recall) (sane.go: sane)
//     (shield.go: shield.take)
//  5. One flight for the name reads storage, once. A stored certificate is served whatever permission and CAs do; one that has ended, or was revoked, is
//     not served and counts as absent. A read that fails is an error, never an absence. (inquire.go: Manager.lookAt, Manager.fetch)
//  6. A name that no site lists needs permission, which is asked for only now. (permission/ask.go: Ask.Allow)
//     (permission/namesfile.go: NamesFile.Allow)
//  7. The name goes into the queue, as one order however many handshakes wait for it. They wait for a bounded time; the order does not end
//     with them, and meanwhile they may be shown that one is on its way. (standin.go: Manager.standIn) Renewals go first, then tenants take turns. (queue.go: queue.want, queue.wait, queue.dispatchLocked) (fair.go: fairQueue.push, fairQueue.enter)
//  8. The order takes the name's lease in storage and looks again: another process may have been faster, or may have failed
//     a moment ago. (obtain.go: Manager.obtain, attempt.lookAgain)
//  9. A key and a request are made and stored, or found where a crash left them, before any CA hears of them. A key that others know is never used
//     again. (pending.go: Manager.pendingFor) (blocked.go: KeyBlocked)
//  10. The CAs for the name are asked in order. One that fails is waited for or passed over, until it has been healthy for a while.
//     (choose.go: ChooseCAs) (route.go: queue.routeLocked, queue.choose) (issue.go: attempt.issue)
//     Right before one places an order it is paid for from the fleet's budgets, in blocks that processes take from storage by compare-and-swap; a name for which there is
//     none keeps its turn in the queue. (budget.go: attempt.placing) (budget/purse.go: Purses.Pay, Purses.GiveBack)
//     (budget/ledger.go: Purses.change)
//  11. What was issued is checked against the key, the names, the clock and itself. (check.go: checkIssued)
//  12. Chain, key and what is to be known of them are stored as one object by compare-and-swap, and then served. If storage
//     refuses, it is served from memory and stored later. Only then does the CA's client forget the order. (keep.go: attempt.keep, attempt.save) (issue.go: Issued.stored)
//  13. If the CA refuses the name, that is remembered in storage, and the name fails at once until the next attempt, which may go to another CA.
//     (issue.go: attempt.fail, attempt.preference) (failures.go: failures.write) An operator can make it earlier. (retry.go: Manager.Retry) (schedule.go: nextAttempt) If it merely lacks what the name needs, the next CA is asked
//     at once; if it dislikes the key, it is asked again with another one. (refusal.go: queue.lacking, attempt.anotherKey)
//  14. If the CA itself fails, its circuit opens: names wait in the queue without their visitors, one of them is tried every few seconds, and all go on as soon as one
//     succeeds. (circuit.go: circuit.fail, circuit.work) (park.go: queue.parkLocked, queue.resumeLocked)
//  15. Whatever fails, its status says what to do about it. (status.go: Manager.Status) (list.go: Manager.List, Manager.ListFailing) (advice.go: advise) What a person may have
//     to act upon is an event. (events.go: Manager.emit, Manager.watchLateness)
//
// # Its end
//
//  16. Now and then the CA is asked when it wants the certificate renewed, by one of all processes; the time is chosen once for the window it gives.
//     (renewalinfo.go: Manager.inform, Manager.askRenewal) (suggestion.go: suggestion.hear)
//  17. When the certificate's time has come, listed or not, visited or not, a new one is ordered in the background while the old one serves: by the process
//     that has the name's share of the work, or by others if it is late. (schedule.go: renewal) (planner.go: Manager.plan, Manager.look, Manager.leftToOwner)
//     (members.go: members.owns, members.beat) No hour gets many more renewals than others. (level.go: planner.level)
//  18. After a restart the planner knows every name, and what the CAs said, from a small index, without listing anything; by it the processes of a fleet tell each
//     other what became of certificates. (index.go: index.put, index.sync) (indexkeep.go: Manager.readIndex, Manager.writeIndex)
//     In the planner a name takes 128 bytes and its text, visited or not. (planitem.go: packedItem.unpack) (itemtable.go: itemTable.find) (calendar.go: calendar.put)
//     What visitors used in the hour before is read into memory meanwhile. (hotlist.go: Manager.listHot) (preload.go: Manager.preload)
//     Handshakes are noted by name and hour. On-demand names that left us are not renewed, until they come back. (visits.go: visits.note) (abandon.go: Manager.leftUs)
//  19. A certificate may have to go before its time. It is entered into a list that every process heeds, so that none serves it again.
//     (revoke.go: Manager.Revoke, Manager.Compromised) (revocation.go: revocations.add) (heed.go: Manager.heedRevocations)
//  20. What follows is done step by step, each found again after a crash: if others know its key, that is blocked for ever, and the certificate is replaced before
//     anything else is ordered; then the CA is told, and nothing is left of the key. (withdraw.go: withdrawal.takeSteps) (wipe.go: withdrawal.wipe)
//  21. A certificate that ended two weeks ago, and that nobody visits or lists, is removed with all that was kept of its name. (sweep.go: Manager.sweepEnded)
//
// A process that another one replaces finishes the orders that run; those that wait, and those that a crash cuts off, the next process finds in storage.
// (retire.go: Manager.Retire)
//
// # Rooms below
//
// What can be understood without the rest lies in rooms of its own: who may have a certificate (permission), what a fleet may order in a time (budget), what is remembered
// for a while (memo), and the internal CA, an issuer like any other (localca).
//
// # What is not stored
//
// Certificates of names below a wildcard site that the internal CA serves are made when a visitor comes and kept in memory only
// (see target). Everything else is in storage before it is in use.
package certs
