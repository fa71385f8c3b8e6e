// An examination: what a service is asked when it is not only to be proven, as by a probe, but measured and judged. Some
// more tokens than a probe, streamed, so that it can be told when the first came; an embedding more than once; which of
// two documents a reranker prefers.
//
// Figures, by name; only what could be measured is there:
//   health_seconds                        until the health path had answered
//   first_token_seconds                   from the request to the first token, thought or said
//   answer_seconds                        to the end of the answer
//   prompt_tokens, generated_tokens       as the server counts them
//   prompt_tokens_per_second, tokens_per_second   as the server says, else from the arrival of its pieces
//   dimensions, norm                      of the embedding
//   same, near, far                       cosine between an embedding and that of the same text asked again, of one that
//                                         says nearly the same, and of one about something else
//   relevant, irrelevant                  how a reranker rates the two documents
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engines/engine.h"

namespace gpumod {

struct Question {
  enum class About { health, answer, again, near, far } about = About::answer;
  HttpRequest request;
};

struct Examination {
  ProbeKind kind = ProbeKind::none;
  std::map<std::string, double> figures;
  std::string answer;                 ///< what a chat said; printable, at most 200 characters
  bool reasoning = false;             ///< it thought, whether or not it came to say something
  std::vector<std::string> problems;  ///< what is wrong, in sentences; none: it passed
  std::string note;                   ///< what could not be asked, and why; may be empty
};

/// In the order in which they are to be asked. The first that gets no reply at all ends it. None for a service of which
/// nothing is known that it could be asked.
std::vector<Question> examination_of(const Service& service);

/// `replies`: one for each question that was asked, in their order.
Examination judge_examination(const Service& service, const std::vector<Question>& questions,
                              const std::vector<Result<HttpReply>>& replies);

}  // namespace gpumod
