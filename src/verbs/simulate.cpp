// simulate mode, simulate services: a switch that is thought through to its end and not made.

#include <algorithm>
#include <charconv>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "control/observe.h"
#include "fit/what_if.h"
#include "verbs/handlers.h"
#include "verbs/imagined_gpu.h"
#include "verbs/simulation.h"
#include "verbs/simulation_json.h"
#include "verbs/subjects.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::size_t most_offers = 8;

/// What people asked about.
struct Question {
  std::string mode;  ///< empty: services by name
  std::vector<ServiceId> services;
  std::vector<ServiceId> optional;
  std::map<ServiceId, std::int64_t> contexts;
};

Result<void> add_and_remove(const Catalog& catalog, const Request& request, std::vector<ServiceId>& services) {
  for (const auto& id : list_of(request, "add")) {
    TRY(catalog.service(id));
    if (std::find(services.begin(), services.end(), id) == services.end()) services.push_back(id);
  }
  for (const auto& id : list_of(request, "remove")) {
    TRY(catalog.service(id));
    if (std::erase(services, id) == 0)
      return fail(ErrorCode::usage, fmt::format("--remove: '{}' is not among the services anyway", id));
  }
  return {};
}

/// "chat=16384"
Result<std::map<ServiceId, std::int64_t>> contexts_in(const Request& request, const Catalog& catalog,
                                                      const std::vector<ServiceId>& services) {
  std::map<ServiceId, std::int64_t> contexts;
  for (const auto& text : list_of(request, "context")) {
    const auto equals = text.find('=');
    std::int64_t tokens = 0;
    const char* end = text.data() + text.size();
    const bool right = equals != std::string::npos &&
                       std::from_chars(text.data() + equals + 1, end, tokens).ptr == end && tokens > 0 &&
                       tokens <= 100'000'000;
    if (!right)
      return fail(ErrorCode::usage, fmt::format("--context needs SERVICE=TOKENS, not '{}'", printable(text)),
                  "For example: --context chat=16384");
    const auto* service = TRY(catalog.service(text.substr(0, equals)));
    if (std::find(services.begin(), services.end(), service->id) == services.end())
      return fail(ErrorCode::usage, fmt::format("--context: '{}' is not among the services", service->id));
    if (!service->llama() && !service->vllm())
      return fail(ErrorCode::usage, fmt::format("--context: '{}' has no context that could be set: its engine is {}",
                                                service->id, to_string(service->engine)));
    contexts[service->id] = tokens;
  }
  return contexts;
}

Result<Question> question_of(const Catalog& catalog, const Request& request, bool about_mode) {
  Question question;
  if (about_mode) {
    const auto* mode = TRY(catalog.mode(text_of(request, "mode")));
    question = {mode->id, mode->services, mode->optional, {}};
  } else {
    for (const auto& id : list_of(request, "services")) {
      TRY(catalog.service(id));
      if (std::find(question.services.begin(), question.services.end(), id) == question.services.end())
        question.services.push_back(id);
    }
    if (question.services.empty())
      return fail(ErrorCode::usage, "simulate services needs the id of one service at least",
                  "gpumod simulate services chat,coder");
  }
  TRY(add_and_remove(catalog, request, question.services));
  question.contexts = TRY(contexts_in(request, catalog, question.services));
  return question;
}

/// What is there, or what would be if these GPUs were.
Task<Result<Snapshot>> look(Context& context, const Catalog& catalog, const std::vector<std::string>& imagined) {
  if (!imagined.empty()) {
    auto gpus = imagined_gpus(imagined);
    if (!gpus) co_return fail(gpus.error());
    Snapshot snapshot;
    snapshot.gpus = std::move(*gpus);
    co_return snapshot;
  }
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  auto snapshot = co_await observe(**machine, catalog);
  if (!snapshot) co_return fail(snapshot.error());
  if (snapshot->gpus.empty())
    co_return fail(ErrorCode::environment,
                   fmt::format("there is no GPU to simulate a switch on: {}",
                               snapshot->gpu_problem ? snapshot->gpu_problem->message : "this machine has none"),
                   "Name one that you have in mind: --gpu \"RTX 4090\", or --gpu mine=24GiB.");
  co_return snapshot;
}

/// What there is to say of another context beside that it is another.
void note_context(const Subject& subject, const Changed& changed, std::int64_t tokens, const Snapshot& snapshot,
                  std::vector<std::string>& notes) {
  const ServiceId& id = subject.service->id;
  if (changed.flags) {
    const auto cells = llama_cells(*changed.model, *changed.flags);
    if (cells.streams > 1)
      notes.push_back(fmt::format("the {} tokens of '{}' are shared out: {} for each of its {} slots", tokens, id,
                                  cells.per_stream, cells.streams));
  }
  if (subject.model->context_length > 0 && tokens > subject.model->context_length)
    notes.push_back(fmt::format("the model of '{}' was trained with {} tokens of context, and is to have {}", id,
                                subject.model->context_length, tokens));
  if (is_up(snapshot, id))
    notes.push_back(fmt::format("'{}' is up with its old context: to change it, it is restarted", id));
}

/// Another context is a change like those that are proposed, only that people ask for it.
Result<void> ask_for_contexts(const Question& question, const Subjects& all, Thought& thought,
                              std::vector<std::string>& notes) {
  for (const auto& subject : thought.subjects) {
    const auto asked = question.contexts.find(subject.service->id);
    if (asked == question.contexts.end()) continue;
    const ServiceId id = asked->first;
    const auto why = all.unread.find(id);
    if (!subject.model || why != all.unread.end())
      return fail(ErrorCode::refused, fmt::format("what another context of '{}' takes cannot be told", id),
                  why != all.unread.end() ? why->second : "Its model, or its command line, is not known well enough.");
    Change change;
    change.kind = Change::Kind::context;
    change.service = id;
    change.context = asked->second;
    if (!takes_effect(subject, change))
      return fail(ErrorCode::refused,
                  fmt::format("--context: the further arguments of '{}' say its context themselves", id),
                  fmt::format("They have the last word. Take {} out of extra_args (in its file, or its engine's in "
                              "gpumod.yaml).",
                              subject.service->vllm() ? "--max-model-len" : "-c or --ctx-size"));
    const auto changed = TRY(with_changes(subject, {change}));
    note_context(subject, changed, asked->second, thought.snapshot, notes);
    thought.asked.push_back(std::move(change));
  }
  return {};
}

/// Why nothing is known of what a service takes: the file that is missing, more often than not.
void note_unread(const Subjects& all, Foresight& foresight) {
  for (const auto& [id, claim] : foresight.claims)
    if (const auto why = all.unread.find(id); !claim.bytes && why != all.unread.end())
      foresight.notes.push_back(fmt::format("what '{}' takes cannot be told from its model: {}", id, why->second));
}

Answer simulate(Context& context, Request request, bool about_mode) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto question = question_of(**catalog, request, about_mode);
  if (!question) co_return fail(question.error());
  const auto imagined = list_of(request, "gpu");
  auto snapshot = co_await look(context, **catalog, imagined);
  if (!snapshot) co_return fail(snapshot.error());
  snapshot->gpus = placeable(std::move(snapshot->gpus));

  Subjects all;
  co_await read_subjects(context, **catalog, question->services, all);
  for (auto& subject : all.subjects)
    subject.optional = std::find(question->optional.begin(), question->optional.end(), subject.service->id) !=
                       question->optional.end();
  if (!imagined.empty()) name_as_measured(snapshot->gpus, all.knowledge.footprints);
  Thought thought;
  thought.snapshot = std::move(*snapshot);
  thought.goal.mode = question->mode;
  for (const auto& id : question->services)
    thought.goal.wanted[id] = Residency::running;
  std::vector<std::string> notes;
  thought.knowledge = all.knowledge;
  thought.subjects = all.subjects;
  if (auto asked = ask_for_contexts(*question, all, thought, notes); !asked) co_return fail(asked.error());

  auto foresight = foresee(thought);
  if (!foresight) co_return fail(foresight.error());
  foresight->notes.insert(foresight->notes.begin(), notes.begin(), notes.end());
  note_unread(all, *foresight);
  if (!imagined.empty())
    foresight->notes.push_back(fmt::format(
        "of each imagined GPU {} count as taken: so much the driver keeps for itself", to_string(kept_by_driver)));
  std::vector<Offer> found;
  if (foresight->fits != Fits::yes) {
    co_await read_other_quantizations(all);
    thought.subjects = all.subjects;
    found = offers(thought, most_offers);
  }
  auto answer = simulation_json(thought, *foresight, found);
  auto& body = answer["simulation"].as_object();
  body["imagined"] = !imagined.empty();
  if (flag_of(request, "visual")) body["visual"] = true;
  if (foresight->fits != Fits::no) co_return json::value(std::move(answer));
  Error error = *foresight->problem;
  if (!found.empty())
    error.hint += fmt::format("{}{} would fit.", error.hint.empty() ? "" : " ",
                              found.size() == 1 ? "One alternative" : fmt::format("{} alternatives", found.size()));
  else if (error.hint.empty())
    error.hint = "Nothing else that was tried makes it fit: take a service out.";
  error.details = std::move(answer);
  co_return fail(std::move(error));
}

}  // namespace

Answer simulate_mode(Context& context, Request request) {
  co_return co_await simulate(context, std::move(request), true);
}

Answer simulate_services(Context& context, Request request) {
  co_return co_await simulate(context, std::move(request), false);
}

}  // namespace gpumod
