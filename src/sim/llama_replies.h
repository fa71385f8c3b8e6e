// What the simulated llama-server says, as JSON with the keys and value types of the real one (recorded from build
// 11669; tests/e2e/test_sim_llama.py holds both beside each other). Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "sim/http_server.h"
#include "sim/llama_model.h"

namespace gpumod::sim {

constexpr const char* llama_build = "b11669-simulated";
constexpr const char* llama_json_type = "application/json; charset=utf-8";

/// What a server calls its model.
struct LlamaIdentity {
  std::string name;
  std::vector<std::string> aliases;
  std::string path;
  std::int64_t created = 0;  ///< seconds since 1970
};

ServerReply llama_reply(const boost::json::value& body, int status = 200);
/// {"error": {"code", "message", "type"}}
ServerReply llama_error(int status, std::string_view message, std::string_view type);
ServerReply llama_bad_request(std::string_view message);
ServerReply llama_not_found();
ServerReply llama_not_supported(std::string_view what, std::string_view flag);
/// "text/event-stream", with what proxies need to hear so as not to hold it back.
ServerReply llama_event_stream();
std::string llama_event(const boost::json::value& data);

/// What was asked for, as far as it matters here.
struct LlamaQuestion {
  enum class Kind { chat, completion, native } kind = Kind::chat;
  bool stream = false;
  bool usage_in_stream = false;
  int most_tokens = -1;  ///< -1: as many as the context holds
  double temperature = 0.8;
  std::string prompt;
};
/// Errors: failed, with the message of the real one's 400.
Result<LlamaQuestion> read_question(LlamaQuestion::Kind kind, const std::string& body);

/// The tokens of one answer, made before the first of them is said: what is simulated is only when they come.
struct LlamaAnswer {
  struct Token {
    std::string text;   ///< as /completion says it
    std::string shown;  ///< as a chat says it: without the tags around a thought
    bool thought = false;
  };
  std::vector<Token> tokens;  ///< with the one that ends the turn, whose text is empty
  bool cut = false;           ///< the tokens ran out before the end
  int prompt_tokens = 0;

  std::string text() const;  ///< all of it, tags included
  std::string content() const;
  std::string thought() const;
};
LlamaAnswer make_answer(const LlamaModel& model, const LlamaQuestion& question, int context);

/// Seconds that an answer took, by the simulated clock.
struct LlamaTimings {
  double prompt = 0;
  double generation = 0;
};

struct LlamaTelling {
  LlamaIdentity identity;
  LlamaQuestion question;
  LlamaAnswer answer;
  LlamaTimings timings;
  std::string id;  ///< "chatcmpl-…"
  std::int64_t created = 0;
  int context = 0;
  int slot = 0;
};

boost::json::object whole_answer(const LlamaTelling& telling);
/// What a stream says before its first token; nothing for kinds that say nothing.
std::vector<boost::json::object> stream_opening(const LlamaTelling& telling);
/// Token number `at`; nothing for tokens that a chat does not show.
std::vector<boost::json::object> stream_piece(const LlamaTelling& telling, std::size_t at);
std::vector<boost::json::object> stream_ending(const LlamaTelling& telling);

boost::json::object generation_settings(const LlamaQuestion* question, bool all);
boost::json::object embedding_reply(const LlamaIdentity& identity, const boost::json::value& request,
                                    unsigned dimensions);
boost::json::array native_embedding_reply(const boost::json::value& request, unsigned dimensions);
/// How many texts /v1/embeddings was given; nothing when it was given none.
std::vector<std::string> embedding_inputs(const boost::json::value& request);

/// The entry of /v1/models, as a single server makes it and as a router passes it on.
boost::json::object model_entry(const LlamaIdentity& identity, const LlamaModel& model, int context);
boost::json::object models_list(const LlamaIdentity& identity, const LlamaModel& model, int context);

std::string random_id();  ///< 32 letters and digits
int tokens_in(std::string_view text);

}  // namespace gpumod::sim
