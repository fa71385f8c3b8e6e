#include "engines/examination.h"

#include <cmath>
#include <functional>
#include <numeric>

#include <boost/json.hpp>

#include "base/text.h"
#include "engines/launching.h"
#include "engines/probes.h"
#include "engines/reply.h"

namespace gpumod {

namespace json = boost::json;

namespace {

using About = Question::About;

constexpr int most_tokens = 64;
constexpr auto usual_question =
    "What is seventeen plus twenty-five? Say the number, and in one sentence how to get there.";
constexpr auto usual_text = "The small cat sleeps on the old sofa.";
constexpr auto near_text = "The small cat sleeps on the old couch.";
constexpr auto far_text = "Interest rates rose by half a percent in March.";

/// The probe's own request, changed: people's prompt, the model's name and the place stay as they are there.
HttpRequest changed(const HttpRequest& probe, Duration timeout, const std::function<void(json::object&)>& change) {
  HttpRequest request = probe;
  request.timeout = timeout;
  std::error_code malformed;
  auto body = json::parse(request.body, malformed);
  if (malformed || !body.is_object()) return request;
  change(body.get_object());
  request.body = json::serialize(body);
  return request;
}

HttpRequest long_question(const Service& service, ProbeKind kind, const HttpRequest& probe, Duration timeout) {
  auto request = changed(probe, timeout, [&](json::object& body) {
    body["max_tokens"] = most_tokens;
    body["stream"] = true;
    body["stream_options"] = json::object{{"include_usage", true}};
    // A prompt that it remembers would be read in no time, and its rate say nothing.
    if (service.engine == EngineKind::llamacpp) body["cache_prompt"] = false;
    if (kind == ProbeKind::chat && service.probe.prompt.empty())
      body["messages"] = json::array{json::object{{"role", "user"}, {"content", usual_question}}};
  });
  request.timed = true;
  return request;
}

// ---- streams ----

/// What came of a stream, as if it had been asked for in one piece, so that the probe's judge can judge it.
struct Streamed {
  HttpReply whole;
  std::size_t first_end = 0;  ///< how much of the body had come with the first token; 0: none did
  std::size_t last_end = 0;   ///< … and with the last
  bool thought = false;
  std::string broken;  ///< an error in the middle of it
};

class StreamReader {
 public:
  explicit StreamReader(ProbeKind kind) : kind_(kind) {}

  Streamed read(const HttpReply& reply) {
    std::size_t begin = 0;
    while (begin < reply.body.size()) {
      const auto newline = reply.body.find('\n', begin);
      const auto end = newline == std::string::npos ? reply.body.size() : newline + 1;
      take_line(trim(std::string_view(reply.body).substr(begin, end - begin)), end);
      begin = end;
    }
    out_.whole.status = reply.status;
    out_.whole.content_type = "application/json";
    out_.whole.body = json::serialize(whole());
    return std::move(out_);
  }

 private:
  void take_line(std::string_view line, std::size_t end) {
    if (!line.starts_with("data:")) return;
    line = trim(line.substr(5));
    std::error_code malformed;
    const auto event = json::parse(line, malformed);
    if (malformed || !event.is_object()) return;  // "[DONE]"
    if (const auto error = error_in(event); !error.empty()) out_.broken = shorten(error, 200);
    if (const auto name = string_at(event, {"model"}); !name.empty()) model_ = name;
    if (const auto* usage = find(event, {"usage"}); usage && usage->is_object()) usage_ = *usage;
    if (const auto* timings = find(event, {"timings"}); timings && timings->is_object()) timings_ = *timings;
    if (const auto why = string_at(event, {"choices", 0, "finish_reason"}); !why.empty()) finish_ = why;
    const auto said = kind_ == ProbeKind::chat ? string_at(event, {"choices", 0, "delta", "content"})
                                               : string_at(event, {"choices", 0, "text"});
    auto thought = string_at(event, {"choices", 0, "delta", "reasoning_content"});
    if (thought.empty()) thought = string_at(event, {"choices", 0, "delta", "reasoning"});
    said_ += said;
    thought_ += thought;
    out_.thought = out_.thought || !thought.empty();
    if (said.empty() && thought.empty()) return;
    if (out_.first_end == 0) out_.first_end = end;
    out_.last_end = end;
  }

  json::object whole() const {
    json::object choice{{"finish_reason", finish_}};
    if (kind_ == ProbeKind::chat)
      choice["message"] = json::object{{"content", said_}, {"reasoning_content", thought_}};
    else
      choice["text"] = said_;
    json::object body{{"model", model_}, {"choices", json::array{choice}}};
    if (!usage_.is_null()) body["usage"] = usage_;
    if (!timings_.is_null()) body["timings"] = timings_;
    return body;
  }

  ProbeKind kind_;
  Streamed out_;
  std::string said_, thought_, model_, finish_;
  json::value usage_, timings_;
};

/// When so much of the body had come.
std::optional<double> arrived(const HttpReply& reply, std::size_t length) {
  if (length == 0) return std::nullopt;
  for (const auto& arrival : reply.arrivals)
    if (arrival.length >= length) return seconds(arrival.after);
  return std::nullopt;
}

void note(Examination& examination, const char* name, const std::optional<double>& figure) {
  if (figure) examination.figures[name] = *figure;
}

/// The server's own rates count; where it gives none, the arrival of its pieces says it.
void note_rates(Examination& examination, const HttpReply& reply, const Streamed& streamed,
                const ProbeVerdict& verdict) {
  const auto first = arrived(reply, streamed.first_end), last = arrived(reply, streamed.last_end);
  note(examination, "first_token_seconds", first);
  auto reading = verdict.prompt_tokens_per_second;
  if (!reading && first && *first > 0 && verdict.prompt_tokens)
    reading = static_cast<double>(*verdict.prompt_tokens) / *first;
  note(examination, "prompt_tokens_per_second", reading);
  auto rate = verdict.tokens_per_second;
  const auto generated = verdict.generated_tokens.value_or(0);
  if (!rate && first && last && *last > *first && generated > 1)
    rate = static_cast<double>(generated - 1) / (*last - *first);
  note(examination, "tokens_per_second", rate);
}

void judge_text(const Service& service, const HttpReply& reply, Examination& examination) {
  const auto& engine = engine_for(service.engine);
  const bool streams = is_success(reply) && reply.content_type.find("event-stream") != std::string::npos;
  Streamed streamed;
  if (streams) streamed = StreamReader(examination.kind).read(reply);
  const auto verdict = engine.judge_probe(service, streams ? streamed.whole : reply);
  if (!streamed.broken.empty())
    examination.problems.push_back("its answer broke off: " + streamed.broken);
  else if (!verdict.ok)
    examination.problems.push_back(verdict.reason);
  if (verdict.unproven) examination.note = verdict.reason;
  examination.answer = verdict.text;
  examination.reasoning = streamed.thought || verdict.reasoning_only;
  note(examination, "answer_seconds", arrived(reply, reply.body.size()));
  const auto count = [](const std::optional<std::int64_t>& amount) {
    return amount ? std::optional(static_cast<double>(*amount)) : std::nullopt;
  };
  note(examination, "prompt_tokens", count(verdict.prompt_tokens));
  note(examination, "generated_tokens", count(verdict.generated_tokens));
  note_rates(examination, reply, streamed, verdict);
}

// ---- embeddings and ranking ----

double length_of(const std::vector<double>& vector) {
  return std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0));
}

std::optional<double> cosine(const std::vector<double>& a, const std::optional<std::vector<double>>& b) {
  if (!b || a.size() != b->size()) return std::nullopt;
  const double lengths = length_of(a) * length_of(*b);
  if (!(lengths > 0) || !std::isfinite(lengths)) return std::nullopt;
  return std::inner_product(a.begin(), a.end(), b->begin(), 0.0) / lengths;
}

std::optional<std::vector<double>> vector_of(const HttpReply& reply) {
  const auto body = is_success(reply) ? json_body(reply) : Result<json::value>(json::value());
  return body ? embedding_in(*body) : std::nullopt;
}

void judge_vectors(const std::map<About, const HttpReply*>& replies, Examination& examination) {
  const auto asked = replies.find(About::answer);
  const auto vector = asked == replies.end() ? std::nullopt : vector_of(*asked->second);
  if (!vector) return;
  note(examination, "dimensions", static_cast<double>(vector->size()));
  if (!std::isfinite(length_of(*vector))) {
    examination.problems.push_back("its embedding has numbers that are too large to be compared");
    return;
  }
  note(examination, "norm", length_of(*vector));
  const auto compare = [&](About about, const char* name) -> std::optional<double> {
    const auto other = replies.find(about);
    if (other == replies.end()) return std::nullopt;
    const auto alike = cosine(*vector, vector_of(*other->second));
    if (!alike)
      examination.problems.push_back("it embeds one text, and then none, or with another number of dimensions");
    note(examination, name, alike);
    return alike;
  };
  const auto same = compare(About::again, "same"), near = compare(About::near, "near"),
             far = compare(About::far, "far");
  // Rounding differs with what else is in a batch; by less than this.
  if (same && *same < 0.999)
    examination.problems.push_back(fmt::format("the same text gets different embeddings (cosine {:.3f})", *same));
  if (far && *far > 0.9999)
    examination.problems.push_back("texts about different things get the same embedding");
  else if (near && far && *near <= *far)
    examination.problems.push_back(fmt::format(
        "a text about something else is nearer than one that says nearly the same (cosine {:.3f} and {:.3f})", *far,
        *near));
}

void judge_ranking(const HttpReply& reply, Examination& examination) {
  const auto body = json_body(reply);
  const auto relevance = body ? relevance_in(*body) : std::nullopt;
  if (!relevance) return;
  note(examination, "relevant", relevance->first);
  note(examination, "irrelevant", relevance->second);
  if (relevance->first <= relevance->second)
    examination.problems.push_back(fmt::format(
        "it rates a document that has nothing to do with the query at least as high as the one that answers "
        "it ({:.3g} and {:.3g})",
        relevance->second, relevance->first));
}

void judge_health(const HttpReply& reply, Examination& examination) {
  if (!is_success(reply))
    examination.problems.push_back(fmt::format("its health check got {}", status_and_message(reply)));
}

std::string subject_of(About about) {
  return about == About::health ? "its health check" : "the question to it";
}

}  // namespace

std::vector<Question> examination_of(const Service& service) {
  const auto& engine = engine_for(service.engine);
  const auto kind = engine.probe_kind(service);
  const auto timeout = 2 * service.probe.timeout;
  std::vector<Question> questions;
  if (service.port != 0 && !service.health_path.empty()) {
    auto health = get_request(service, service.health_path, question_timeout);
    health.timed = true;
    questions.push_back({About::health, std::move(health)});
  }
  const auto probe = engine.probe_request(service);
  if (!probe) return questions;
  if (kind == ProbeKind::chat || kind == ProbeKind::completion) {
    questions.push_back({About::answer, long_question(service, kind, *probe, timeout)});
  } else if (kind == ProbeKind::embedding) {
    const auto embed = [&](About about, const char* text) {
      auto request = changed(*probe, timeout, [&](json::object& body) { body["input"] = text; });
      request.timed = true;
      questions.push_back({about, std::move(request)});
    };
    embed(About::answer, usual_text);
    embed(About::again, usual_text);
    embed(About::near, near_text);
    embed(About::far, far_text);
  } else {
    HttpRequest request = *probe;
    request.timed = true;
    questions.push_back({About::answer, std::move(request)});
  }
  return questions;
}

Examination judge_examination(const Service& service, const std::vector<Question>& questions,
                              const std::vector<Result<HttpReply>>& replies) {
  const auto& engine = engine_for(service.engine);
  Examination examination;
  examination.kind = engine.probe_kind(service);
  if (questions.empty()) examination.note = "nothing is known that it could be asked: declare 'probe:' for it";
  std::map<About, const HttpReply*> by_subject;
  for (std::size_t i = 0; i < std::min(questions.size(), replies.size()); ++i) {
    const auto about = questions[i].about;
    if (!replies[i]) {
      examination.problems.push_back(fmt::format("{} failed: {}", subject_of(about), replies[i].error().message));
      continue;
    }
    by_subject[about] = &*replies[i];
    if (about == About::health) {
      judge_health(*replies[i], examination);
      note(examination, "health_seconds", arrived(*replies[i], replies[i]->body.size()));
    }
  }
  const auto answer = by_subject.find(About::answer);
  if (answer == by_subject.end()) return examination;
  judge_text(service, *answer->second, examination);
  if (examination.kind == ProbeKind::embedding) judge_vectors(by_subject, examination);
  if (examination.kind == ProbeKind::rerank) judge_ranking(*answer->second, examination);
  return examination;
}

}  // namespace gpumod
