// doctor: everything this machine needs, looked at, judged, and mended where that is safe.

#include <boost/json.hpp>

#include "base/paths.h"
#include "verbs/doctor/fix.h"
#include "verbs/doctor/gather.h"
#include "verbs/doctor/judge.h"
#include "verbs/handlers.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// A planted machine for tests, or another one's files.
std::filesystem::path root_of_box() {
  const auto named = environment_variable("GPUMOD_BOX_ROOT");
  return named.empty() ? "/" : named;
}

constexpr Duration mend_patience = 12s;  // logind alone is given ten

}  // namespace

Answer doctor(Context& context, Request request) {
  const bool fixes = flag_of(request, "fix");
  if (flag_of(request, "yes") && !fixes) co_return fail(ErrorCode::usage, "--yes goes with --fix");
  const auto began = now();
  auto facts = co_await gather(context, root_of_box());
  auto checks = judge(facts);
  json::array fixed;
  if (flag_of(request, "apply") || (fixes && flag_of(request, "yes"))) {
    auto mending = carry_out_all(
        context.loop(), checks, [](const Fix& fix) { return carry_out(fix, {}); }, mend_patience);
    fixed = co_await std::move(mending);
    // Looked at anew, with nothing of what was opened before: what is said must be so now.
    Context fresh(context.loop(), context.paths(), {});
    facts = co_await gather(fresh, root_of_box());
    checks = judge(facts);
  }
  json::array left;
  for (const auto& check : checks)
    for (const auto& fix : check.fixes)
      left.push_back(json::object{{"check", check.id}, {"text", describe(fix)}});
  const auto worst = worst_of(checks);
  co_return json::value(json::object{{"state", to_string(worst == Health::skipped ? Health::ok : worst)},
                                     {"checks", describe_checks(checks)},
                                     {"fixes", std::move(left)},
                                     {"fixed", std::move(fixed)},
                                     {"seconds", seconds(now() - began)}});
}

}  // namespace gpumod
