package api

import (
	"context"
	"net/http"
)

// Reports takes what others report about mail that left here. Who is the operator's account.
type Reports interface {
	Report(ctx context.Context, who string, data []byte) (*Report, error)
}

// Report is what became of a report.
type Report struct {
	Kind     string `json:"kind" doc:"abuse, fraud, virus, not-spam, opt-out or other"`
	Reporter string `json:"reporter" doc:"domain of who sent it"`
	Message  string `json:"message" doc:"id of the message that it is about, as the log has it; empty where none of ours is in it"`
	User     string `json:"user,omitempty" doc:"who sent that"`
	Identity string `json:"identity,omitempty"`
	Source   string `json:"source,omitempty" doc:"delivery address that it left from"`
	Counted  bool   `json:"counted" doc:"it counts towards a lock of the sender"`
	Learnt   string `json:"learnt" doc:"spam or ham where the content filter learnt the message, else why not"`
	Again    bool   `json:"again,omitempty" doc:"the same report was handed in before; nothing was done"`
}

const maxReport = 16 << 20 // bytes

func (s *Server) reportRoutes() []route {
	return []route{
		{method: "POST", path: "/v1/reports", summary: "hand in a report about mail that left here: by RFC 5965, or a mail with the message attached; the body is the report", out: Report{}, limit: maxReport,
			serve: func(r *http.Request) (any, error) {
				data, err := mailOf(r)
				if err != nil {
					return nil, err
				}
				return s.back.Report(r.Context(), who(r.Context()), data)
			}},
	}
}
