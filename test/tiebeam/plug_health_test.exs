# Plug is no dependency: what the plug uses of it.
unless Code.ensure_loaded?(Plug.Conn) do
  defmodule Plug.Conn do
    @moduledoc false
    defstruct path_info: [], resp_headers: [], status: nil, resp_body: nil, halted: false, state: :unset

    def put_resp_header(%{state: :unset} = conn, name, value),
      do: %{conn | resp_headers: List.keystore(conn.resp_headers, name, 0, {name, value})}

    def send_resp(%{state: :unset} = conn, status, body),
      do: %{conn | state: :sent, status: status, resp_body: body}

    def halt(conn), do: %{conn | halted: true}
  end
end

defmodule Tiebeam.Plug.HealthTest do
  use ExUnit.Case, async: true

  import Support.Eventually

  alias Support.{Net, RustMember}
  alias Tiebeam.Metrics
  alias Tiebeam.Plug.Health

  setup_all do
    start_supervised!({Tiebeam, name: Plugged, process: :plugged, voters: [node()]})
    :ok
  end

  defp get(path, options) do
    # Made at run time: the struct may be that of Plug itself.
    conn = struct(Plug.Conn, path_info: String.split(path, "/", trim: true))
    Health.call(conn, Health.init(options))
  end

  defp type(conn), do: :proplists.get_value("content-type", conn.resp_headers)

  test "below a forward it is the whole answer" do
    assert %{status: 200, resp_body: "ok\n", halted: true} = get("/health", cluster: Plugged)
    assert %{status: 200, resp_body: text} = conn = get("/metrics", cluster: Plugged)
    assert type(conn) == Metrics.content_type()
    assert text =~ ~s(tiebeam_members{status="alive"} 1\n)
    assert %{status: 404, halted: true} = get("/nothing", cluster: Plugged)
  end

  test "in a pipeline it lets go on what is not for it" do
    options = [cluster: Plugged, at: "/cluster"]
    assert %{status: 200, halted: true} = get("/cluster/health", options)

    for path <- ["/health", "/cluster", "/cluster/other", "/"],
        do: assert(%{status: nil, halted: false} = get(path, options))
  end

  test "ready says what is missing" do
    eventually(fn -> get("/ready", cluster: Plugged, leader: true).status == 200 end)

    assert %{status: 503, resp_body: "this node sees 1 of 2 members\n"} =
             get("/ready", cluster: Plugged, members: 2)

    assert %{status: 503, resp_body: "no cluster NoSuchCluster runs on this node\n"} =
             get("/ready", cluster: NoSuchCluster)

    assert %{status: 503} = get("/metrics", cluster: NoSuchCluster)
  end

  test "a node that leaves is not ready any more" do
    start_supervised!({Tiebeam, name: Leaving, process: :leaving})
    assert get("/ready", cluster: Leaving).status == 200
    :ok = Tiebeam.leave(Leaving)
    assert get("/ready", cluster: Leaving).status == 503
  end

  test "the metrics have the names, the types and the words of those of a Rust node" do
    port = Net.free_port()
    RustMember.start(Net.name("r"), args: ["--http", "127.0.0.1:#{port}"])

    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false])
    :ok = :gen_tcp.send(socket, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    rust = read(socket, "")
    assert rust =~ Metrics.content_type()

    assert described(rust) != []
    assert described(Metrics.prometheus(Plugged)) == described(rust)
    assert rows(Metrics.prometheus(Plugged)) == rows(rust)
  end

  defp read(socket, text) do
    case :gen_tcp.recv(socket, 0, 30_000) do
      {:ok, more} -> read(socket, text <> more)
      {:error, :closed} -> text
    end
  end

  # The lines that describe, in order; and the names of the values.
  defp described(text), do: Regex.scan(~r/^# .*$/m, text)
  defp rows(text), do: Regex.scan(~r/^(tiebeam_\S+) \S+$/m, text, capture: :all_but_first)
end
