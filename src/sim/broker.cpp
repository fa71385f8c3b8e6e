// The broker: the process that is the simulated GPU. See protocol.h for what it is asked.
#include <charconv>
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
    "usage: gpumod-sim broker --socket PATH --gpu \"NAME=AMOUNT\" [--gpu …] [--mig \"INDEX:PROFILE=AMOUNT\"]…\n"
    "         [--reserved AMOUNT] [--driver-version V]\n"
    "         [--release-delay D] [--release-ramp D] [--release-unlisted] [--release-always]\n"
    "         [--fault NAME[=VALUE]]… [--with-parent]\n";

/// What a driver keeps for itself on a 24 GB card: NVML says 24564 MiB there, CUDA 23.65 GiB.
constexpr Bytes usual_reserve = Bytes::mib(348);

/// A UUID that looks like NVIDIA's and is the same at every start, so that configurations can name it.
std::string uuid_of(std::string_view name, std::size_t index, std::string_view kind = "GPU") {
  std::uint64_t hash[2] = {0xcbf29ce484222325, 0x84222325cbf29ce4};  // FNV-1a, from two places
  for (auto& half : hash)
    for (const unsigned char byte : fmt::format("{} {}", index, name))
      half = (half ^ byte) * 0x100000001b3;
  const std::string digits = fmt::format("{:016x}{:016x}", hash[0], hash[1]);
  const std::string_view d = digits;
  return fmt::format("{}-{}-{}-{}-{}-{}", kind, d.substr(0, 8), d.substr(8, 4), d.substr(12, 4), d.substr(16, 4),
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

/// "0:1g.10gb=9856MiB": a MIG device of GPU 0. `cards`: the GPUs, and the slices so far.
Result<Card> slice_of(std::string_view text, const std::vector<Card>& cards) {
  const auto colon = text.find(':'), equals = text.rfind('=');
  int parent = -1;
  std::from_chars(text.data(), text.data() + std::min(colon, text.size()), parent);
  const bool is_gpu =
      parent >= 0 && parent < static_cast<int>(cards.size()) && !cards[static_cast<std::size_t>(parent)].slice;
  if (colon == std::string_view::npos || equals == std::string_view::npos || equals < colon || !is_gpu)
    return fail(ErrorCode::usage, fmt::format("--mig: '{}' is not of the form INDEX:PROFILE=AMOUNT", text));
  const auto profile = trim(text.substr(colon + 1, equals - colon - 1));
  const Bytes total = TRY(parse_amount(text.substr(equals + 1)));
  constexpr int first_instance = 7;  // as on a card cut in seven; NVML promises no order
  const Slice slice{parent, first_instance + static_cast<int>(cards.size())};
  const auto& whole = cards[static_cast<std::size_t>(parent)];
  return Card{fmt::format("{} MIG {}", whole.name, printable(profile)), uuid_of(profile, cards.size(), "MIG"), total,
              Bytes(), slice};
}

Result<Requests::Setup> setup_of(const Flags& flags) {
  Requests::Setup setup;
  const Bytes reserved = TRY(flags.amount("reserved", usual_reserve));
  for (const auto& text : flags.all("gpu"))
    setup.cards.push_back(TRY(card_of(text, setup.cards.size(), reserved)));
  if (setup.cards.empty()) return fail(ErrorCode::usage, "at least one --gpu is needed");
  for (const auto& text : flags.all("mig"))
    setup.cards.push_back(TRY(slice_of(text, setup.cards)));
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
  const auto flags = TRY(Flags::parse(
      arguments, {"socket", "gpu", "mig", "reserved", "driver-version", "release-delay", "release-ramp", "fault"},
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
