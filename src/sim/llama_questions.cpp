// What a server with one model is asked, and the time its answers take.
#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include "sim/llama_gate.h"
#include "sim/llama_log.h"
#include "sim/llama_single_server.h"

namespace gpumod::sim {

namespace json = boost::json;
using Kind = LlamaQuestion::Kind;

namespace {
constexpr Duration look_interval = 50ms;  // how often a waiting request looks whether its client is still there
}

Task<ServerReply> LlamaSingle::handle(ServerRequest request) {
  auto refusal = llama_gate(keys_, request);
  if (refusal) co_return with_llama_headers(std::move(*refusal));
  auto routing = route(std::move(request));
  auto reply = co_await std::move(routing);
  co_return with_llama_headers(std::move(reply));
}

Task<ServerReply> LlamaSingle::route(ServerRequest request) {
  const auto method = llama_method(request);
  const auto is = [&](std::string_view wanted, std::initializer_list<std::string_view> paths) {
    return method == wanted && std::find(paths.begin(), paths.end(), request.path) != paths.end();
  };
  const bool health = is_health(request) && method == "GET";
  if (!loaded_ && !(health && model_.has(llama_faults::health_lies))) {
    if (request.path == "/") co_return llama_not_found();
    co_return llama_error(503, "Loading model", "unavailable_error");
  }
  if (health) co_return llama_reply(json::object{{"status", "ok"}});
  if (is("GET", {"/props"}))
    co_return llama_reply(llama_props(settings_, identity_, model_, placement_.context, slots_.size(), asleep_));
  if (is("GET", {"/models", "/v1/models"})) co_return llama_reply(models_list(identity_, model_, placement_.context));
  if (is("GET", {"/lora-adapters"})) co_return llama_reply(json::array());
  if (is("GET", {"/metrics"})) {
    if (!settings_.flag("metrics")) co_return llama_not_supported("metrics endpoint", "--metrics");
    ServerReply reply;
    reply.content_type = "text/plain; version=0.0.4";
    reply.headers["Process-Start-Time-Unix"] = fmt::format("{}", identity_.created);
    reply.body = llama_metrics(counters_, slots_);
    co_return reply;
  }
  if (is("POST", {"/props"})) {
    if (!settings_.flag("props")) co_return llama_not_supported("changing global properties", "--props");
    co_return llama_reply(json::object{{"success", true}});
  }
  Task<ServerReply> replying;
  if (is("GET", {"/slots"}))
    replying = slots();
  else if (is("POST", {"/chat/completions", "/v1/chat/completions"}))
    replying = answer(Kind::chat, std::move(request));
  else if (is("POST", {"/v1/completions"}))
    replying = answer(Kind::completion, std::move(request));
  else if (is("POST", {"/completion", "/completions"}))
    replying = answer(Kind::native, std::move(request));
  else if (is("POST", {"/v1/embeddings"}))
    replying = embed(std::move(request), false);
  else if (is("POST", {"/embedding", "/embeddings"}))
    replying = embed(std::move(request), true);
  else if (is("POST", {"/tokenize"}))
    co_return llama_reply(tokenized(request.body));
  else
    co_return llama_not_found();
  auto reply = co_await std::move(replying);
  co_return reply;
}

bool LlamaSingle::is_wedged() const {
  return model_.has(llama_faults::wedged_child) && questions_ >= model_.wedge_after;
}

Task<ServerReply> LlamaSingle::slots() {
  if (!settings_.flag("slots", true)) co_return llama_not_supported("slots endpoint", "--slots");
  if (is_wedged()) co_await hang();
  co_await wake();
  co_return llama_reply(llama_slots(slots_));
}

/// A chat goes where its prompt is known already, which is mostly the first slot; everything else to the slot that was
/// used longest ago.
LlamaSlot* LlamaSingle::free_slot(Pick pick) {
  LlamaSlot* found = nullptr;
  for (auto& slot : slots_) {
    if (slot.busy) continue;
    if (!found || (pick == Pick::least_recent && slot.turn < found->turn)) found = &slot;
  }
  return found;
}

void LlamaSingle::mark(LlamaSlot& slot) {
  slot.used = true;
  slot.task = tasks_++;
  slot.turn = tasks_;
  slot.question = {};
  slot.prompt_tokens = slot.generated = 0;
}

/// Waits for a free slot, as the real one's queue does.
Task<std::shared_ptr<LlamaSingle::Ticket>> LlamaSingle::take_slot(Pick pick) {
  auto ticket = std::make_shared<Ticket>(*this);
  if (is_wedged()) co_await hang();
  ++questions_;
  co_await wake();
  for (;;) {
    if (ending_) co_await hang();
    if (auto* slot = free_slot(pick)) {
      mark(*slot);
      slot->busy = true;
      ticket->slot = slot;
      co_return ticket;
    }
    slot_freed_.reset();
    (void)co_await slot_freed_.wait();
  }
}

Task<bool> LlamaSingle::pass(TimePoint until, std::function<bool()> has_left) {
  for (;;) {
    if (ending_) co_await hang();
    if (has_left && has_left()) co_return false;
    if (now() >= until) co_return true;
    co_await wait_until(std::min(until, now() + look_interval));
  }
}

TimePoint LlamaSingle::said_by(TimePoint start, const LlamaTelling& telling, std::size_t token) const {
  const double simulated = telling.timings.prompt + static_cast<double>(token) / placement_.tokens_per_second;
  return start + scaled(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(simulated)));
}

Task<ServerReply> LlamaSingle::answer(Kind kind, ServerRequest request) {
  auto question = read_question(kind, request.body);
  if (!question) co_return llama_bad_request(question.error().message);
  if (model_.dimensions > 0) {
    if (auto* slot = free_slot(Pick::least_recent)) {
      mark(*slot);
      slot->question = *question;
    }
    co_return llama_error(500, "the current context does not support logits computation. skipping", "server_error");
  }
  const int context = slots_.front().context;
  auto made = make_answer(model_, *question, context);
  if (made.prompt_tokens >= context) co_return llama_too_long(made.prompt_tokens, context);

  auto taking = take_slot(Pick::first);
  auto ticket = co_await std::move(taking);
  auto telling = std::make_shared<LlamaTelling>();
  telling->identity = identity_;
  telling->question = std::move(*question);
  telling->answer = std::move(made);
  telling->id = "chatcmpl-" + random_id();
  telling->created = std::chrono::duration_cast<std::chrono::seconds>(wall_now().time_since_epoch()).count();
  telling->slot = static_cast<int>(ticket->slot - &slots_.front());
  telling->timings.prompt = telling->answer.prompt_tokens / model_.prompt_tokens_per_second;
  const auto tokens = telling->answer.tokens.size();
  telling->timings.generation = static_cast<double>(tokens > 0 ? tokens - 1 : 0) / placement_.tokens_per_second;
  ticket->slot->question = telling->question;
  ticket->slot->prompt_tokens = telling->answer.prompt_tokens;
  ticket->slot->generated = 0;
  llama_log('I', fmt::format("slot launch_slot_: id  {} | task {} | processing task, is_child = 0", telling->slot,
                             ticket->slot->task));

  if (telling->question.stream) {
    auto reply = llama_event_stream();
    reply.stream = [this, telling, ticket](ServerReply::Write write) {
      return tell(telling, ticket, std::move(write));
    };
    co_return reply;
  }
  const auto start = now();
  for (std::size_t token = 0; token < tokens; ++token) {
    auto waiting = pass(said_by(start, *telling, token), request.has_left);
    const bool still_there = co_await std::move(waiting);
    if (!still_there) {
      llama_log('W', fmt::format("srv          stop: cancel task, id_task = {}", ticket->slot->task));
      co_return ServerReply();
    }
    ++ticket->slot->generated;
  }
  count(*telling);
  co_return llama_reply(whole_answer(*telling));
}

/// One stream, from the role to the last line.
Task<void> LlamaSingle::tell(Shared telling, std::shared_ptr<Ticket> ticket, ServerReply::Write write) {
  const auto start = now();
  bool still_there = true;
  const auto tokens = telling->answer.tokens.size();
  for (std::size_t token = 0; still_there && token <= tokens; ++token) {
    std::vector<json::object> chunks;
    if (token == 0) chunks = stream_opening(*telling);
    if (token < tokens) {
      auto waiting = pass(said_by(start, *telling, token), nullptr);
      (void)co_await std::move(waiting);
      ++ticket->slot->generated;
      for (auto& chunk : stream_piece(*telling, token))
        chunks.push_back(std::move(chunk));
    } else {
      chunks = stream_ending(*telling);
    }
    std::string text;
    for (const auto& chunk : chunks)
      text += llama_event(chunk);
    if (token == tokens && telling->question.kind != Kind::native) text += "data: [DONE]\n\n";
    auto writing = write(std::move(text));
    still_there = co_await std::move(writing);
  }
  if (still_there)
    count(*telling);
  else
    llama_log('W', fmt::format("srv          stop: cancel task, id_task = {}", ticket->slot->task));
}

void LlamaSingle::count(const LlamaTelling& telling) {
  const auto generated = static_cast<int>(telling.answer.tokens.size());
  counters_.prompt_tokens += telling.answer.prompt_tokens;
  counters_.prompt_seconds += telling.timings.prompt;
  counters_.generated_tokens += generated;
  counters_.generation_seconds += telling.timings.generation;
  counters_.longest = std::max(counters_.longest, telling.answer.prompt_tokens + generated);
}

Task<ServerReply> LlamaSingle::embed(ServerRequest request, bool native) {
  if (!settings_.flag("embeddings")) co_return llama_not_supported("embeddings", "--embeddings");
  boost::system::error_code problem;
  const auto body = json::parse(request.body, problem);
  if (problem) co_return llama_bad_request(fmt::format("[json.exception.parse_error.101] {}", problem.message()));
  const auto texts = embedding_inputs(body);
  if (texts.empty()) co_return llama_bad_request("\"input\" or \"content\" must be provided");
  auto taking = take_slot(Pick::least_recent);
  const auto ticket = co_await std::move(taking);
  for (std::size_t text = 1; text < texts.size(); ++text)
    if (auto* slot = free_slot(Pick::least_recent)) mark(*slot);
  double tokens = 0;
  for (const auto& text : texts)
    tokens += tokens_in(text);
  const auto wanted = std::chrono::duration<double>(tokens / model_.prompt_tokens_per_second);
  auto waiting = pass(now() + scaled(std::chrono::duration_cast<Duration>(wanted)), request.has_left);
  (void)co_await std::move(waiting);
  const unsigned dimensions = model_.dimensions > 0 ? model_.dimensions : 64;
  if (native) co_return llama_reply(native_embedding_reply(body, dimensions));
  co_return llama_reply(embedding_reply(identity_, body, dimensions));
}

}  // namespace gpumod::sim
