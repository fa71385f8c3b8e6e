// switching/ — every decision of gpumod: what to do, in which order, and what to do when it goes wrong. Pure: values
// and time stamps in, values out. It knows base/, model/ and fit/; it must never know a clock, a file, a socket, D-Bus
// or an engine. The same code runs in production and in the simulator.
//
// plan(): from what is really there to what is wanted.
//
// Freeing (stop, unload, sleep) comes before taking (start, load, wake) on each GPU and each port, unless everything
// that is wanted fits beside what runs: then it starts first and stops afterwards, so that a failed start costs nobody
// their service. On one GPU at most one allocating step runs at a time, and none beside a freeing one: a vLLM that
// profiles while memory is freed aborts.
//
// What becomes of one service, by what it is and what the goal wants of it. Rows: what was observed. "·": nothing.
//
//   is \ wanted        running            asleep (1 or 2)         unloaded              stopped, or not named by an
//                                                                                       exclusive goal
//   ---------------   -----------------  ----------------------  --------------------  ----------------------------
//   stopped           start¹             start, sleep            start of the router   ·
//   starting          verify             verify, sleep           unload                stop²  (unload, if its
//   running           verify             sleep                   unload                        router stays)
//   sleeping          wake               · ³                     (only routers unload) stop
//   unloaded          load               (routers do not sleep)  ·                     · , or stop of the router⁴
//   stopping          stop, start        stop, start, sleep      stop, start           stop
//   failed, alive     stop, start⁵       stop, start, sleep      ·                     stop
//   failed, gone      start              start, sleep            start of the router   ·
//
//   ¹ A model in a router: start of the router, unless it runs, then load.
//   ² Who is on its way up still takes memory: it is waited for, or stopped first, before anybody else takes any there.
//   ³ Asleep on another level is as good for everybody's purpose.
//   ⁴ The router itself stops when no model of it is kept.
//   ⁵ Of a router only when every model of it has failed; one failed model beside well ones is loaded anew.
//
// A goal that is not exclusive leaves alone what it does not name. A distrusted unit (a probe, a wake or an unload has
// failed on it) is stopped and started, whatever it looks like. So is one that runs with older settings than its file's
// where an exclusive goal wants a service of it to run, or where one that is named does not answer yet; but people's own
// units only they restart, and on the way back nobody is: what ran before ran with those. Units of ours that no file
// declares are orphans: an exclusive goal stops them. Units of a broken file are left alone unless they are named as
// stopped, and everything foreign always is.
//
// What order that takes, and what an interruption at any moment means: switch.h. What a crash means: recovery.h.
#pragma once

#include <set>

#include "base/result.h"
#include "model/footprint.h"
#include "model/plan.h"
#include "model/service.h"

namespace gpumod {

struct Knowledge {
  std::map<ServiceId, Service> services;
  Settings settings;
  /// Units whose services must be restarted whatever they look like: a probe or an unload has failed on them.
  std::set<std::string> distrusted;
  /// Services whose files are broken, with the place of the first problem: what runs of them is left alone, unless the
  /// goal names one as stopped.
  std::map<ServiceId, std::string> broken;
  /// What is known of services beyond their files.
  Footprints footprints;
};

/// A plan names GPUs as placeable() does. Errors: refused (does not fit, port held by a stranger), environment (a GPU is
/// needed and cannot be read), configuration (a device that does not exist, or is in MIG mode). Nothing has been touched
/// then.
Result<Plan> plan(const Snapshot& snapshot, const Goal& goal, const Knowledge& knowledge);

/// For people: it runs, and its file says something else now; with what applies that.
std::string in_words_outdated(const Service& service);

/// What runs now, as a goal: what a rollback restores. Services of the catalogue that do not run are wanted stopped;
/// those that are alive but neither up nor asleep are left out.
Goal goal_from(const Snapshot& snapshot);

}  // namespace gpumod
