// The broker: the process that is the simulated GPU. See protocol.h for what it is asked.
#include <csignal>
#include <cstdio>

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

#include "base/text.h"
#include "sim/broker_server.h"
#include "sim/flags.h"
#include "sim/options.h"
#include "sim/programs.h"
#include "sim/protocol.h"

namespace gpumod::sim {

namespace {

constexpr const char* usage =
    "usage: gpumod-sim broker --socket PATH --gpu \"NAME=AMOUNT\" [--gpu …] [--reserved AMOUNT] [--driver-version V]\n"
    "         [--release-delay D] [--release-ramp D] [--release-unlisted] [--release-always]\n"
    "         [--fault NAME[=VALUE]]… [--with-parent]\n";

/// What a driver keeps for itself on a 24 GB card: NVML says 24564 MiB there, CUDA 23.65 GiB.
constexpr Bytes usual_reserve = Bytes::mib(348);

/// A UUID that looks like NVIDIA's and is the same at every start, so that configurations can name it.
std::string uuid_of(std::string_view name, std::size_t index) {
  std::uint64_t hash[2] = {0xcbf29ce484222325, 0x84222325cbf29ce4};  // FNV-1a, from two places
  for (auto& half : hash)
    for (const unsigned char byte : fmt::format("{} {}", index, name))
      half = (half ^ byte) * 0x100000001b3;
  const std::string digits = fmt::format("{:016x}{:016x}", hash[0], hash[1]);
  const std::string_view d = digits;
  return fmt::format("GPU-{}-{}-{}-{}-{}", d.substr(0, 8), d.substr(8, 4), d.substr(12, 4), d.substr(16, 4),
                     d.substr(20, 12));
}

Result<Card> card_of(std::string_view text, std::size_t index, Bytes reserved) {
  const auto equals = text.rfind('=');
  const auto name = trim(text.substr(0, equals));
  if (equals == std::string_view::npos || name.empty() || name.size() > 90)
    return fail(ErrorCode::usage, fmt::format("--gpu: '{}' is not of the form NAME=AMOUNT", text));
  const Bytes total = TRY(parse_amount(text.substr(equals + 1)));
  if (total <= reserved)
    return fail(ErrorCode::usage, fmt::format("--gpu: of {} the driver would keep {}", gpumod::to_string(total),
                                              gpumod::to_string(reserved)));
  return Card{printable(name), uuid_of(name, index), total, reserved};
}

Result<Requests::Setup> setup_of(const Flags& flags) {
  Requests::Setup setup;
  const Bytes reserved = TRY(flags.amount("reserved", usual_reserve));
  for (const auto& text : flags.all("gpu"))
    setup.cards.push_back(TRY(card_of(text, setup.cards.size(), reserved)));
  if (setup.cards.empty()) return fail(ErrorCode::usage, "at least one --gpu is needed");
  if (setup.cards.size() > most_gpus) return fail(ErrorCode::usage, fmt::format("at most {} GPUs", most_gpus));
  setup.driver_version = printable(flags.text("driver-version", setup.driver_version));
  setup.curve.delay = scaled(TRY(flags.duration("release-delay", {})));
  setup.curve.ramp = scaled(TRY(flags.duration("release-ramp", {})));
  setup.curve.listed = !flags.has("release-unlisted");
  setup.curve.always = flags.has("release-always");
  for (const auto& fault : flags.all("fault"))
    TRY(setup.faults.set(fault, static_cast<int>(setup.cards.size())));
  return setup;
}

Result<void> run_broker(const Arguments& arguments) {
  const auto flags = TRY(
      Flags::parse(arguments, {"socket", "gpu", "reserved", "driver-version", "release-delay", "release-ramp", "fault"},
                   {"release-unlisted", "release-always", "with-parent"}));
  if (!flags.has("socket")) return fail(ErrorCode::usage, "--socket is needed");
  auto setup = TRY(setup_of(flags));

  sigset_t ends;
  ::sigemptyset(&ends);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP})
    ::sigaddset(&ends, signal);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  const Fd stop(::signalfd(-1, &ends, SFD_CLOEXEC));
  if (flags.has("with-parent")) ::prctl(PR_SET_PDEATHSIG, SIGTERM);

  auto server = TRY(BrokerServer::listen(flags.text("socket"), std::move(setup)));
  std::puts("ready");
  std::fflush(stdout);
  return server.run(stop.get());
}

}  // namespace

int broker_main(const Arguments& arguments) {
  const auto done = run_broker(arguments);
  if (done) return 0;
  std::fprintf(stderr, "gpumod-sim broker: %s\n", done.error().message.c_str());
  if (!done.error().hint.empty()) std::fprintf(stderr, "  %s\n", done.error().hint.c_str());
  if (done.error().code == ErrorCode::usage) std::fputs(usage, stderr);
  return static_cast<int>(done.error().code);
}

}  // namespace gpumod::sim
