defmodule Tiebeam.Plug.Health do
  @moduledoc """
  A plug that tells load balancers, Kubernetes and Prometheus how this node is.

  | path | |
  |---|---|
  | `/health` | 200, or 503 and why: this node sees no majority of the members that were last here together, is slow itself, or has stopped to take part in its group; as on a Rust node |
  | `/ready` | 200 once work may be sent here: as `/health`, and this node is a member, sees `:members` of them, and a leader if `:leader` says so |
  | `/metrics` | `Tiebeam.Metrics.prometheus/1` |

  In a Phoenix application or a `Plug.Router`, anywhere:

      # endpoint.ex, before the router: what is not below /cluster goes on
      plug Tiebeam.Plug.Health, cluster: MyApp.Cluster, at: "/cluster"

      # router.ex: all below /cluster
      forward "/cluster", Tiebeam.Plug.Health, cluster: MyApp.Cluster, members: 2

  Neither Plug nor Phoenix is a dependency; `call/2` needs `Plug.Conn` when it is called. `answer/2` serves any other server.

  In Kubernetes `/ready` is for the readiness probe. Neither is for the liveness probe: a restart of all nodes on the lesser side of a split
  helps nobody.

  Whoever reaches the paths can read them: keep the port from strangers, or put the plug behind what authenticates.

  ## Options

  - `:cluster` - the name of the cluster. Required.
  - `:at` - the path before these, for a plug in a pipeline: requests for anything else go on. Without it the plug is the end of a
    `forward`, and anything else is 404.
  - `:members` - how many alive members this node must see to be ready, itself included. Default: 1.
  - `:leader` - whether it must know of a leader to be ready. Default: `false`.
  """

  # It is no dependency: whoever uses the plug has it.
  @compile {:no_warn_undefined, Plug.Conn}

  alias Tiebeam.{Leadership, Metrics, Table}

  @defaults [cluster: nil, at: nil, members: 1, leader: false]

  # From this multiplier on a node is no good witness: it misses what others send, or stands still. As on a Rust node.
  @unwell 4

  @text "text/plain; charset=utf-8"

  @typedoc "The checked options."
  @opaque options :: map

  @doc """
  Checks the options; raises `ArgumentError` for those that cannot be used.

      iex> Tiebeam.Plug.Health.init(cluster: MyApp.Cluster, members: 0)
      ** (ArgumentError) the option :members must be a positive integer, got: 0
  """
  @spec init(keyword) :: options
  def init(options) do
    options = Leadership.options!(options, @defaults)

    unless is_atom(options.cluster) and options.cluster != nil,
      do:
        raise(
          ArgumentError,
          "the option :cluster is required: the name of a cluster, got: #{inspect(options.cluster)}"
        )

    unless is_integer(options.members) and options.members > 0,
      do:
        raise(
          ArgumentError,
          "the option :members must be a positive integer, got: #{inspect(options.members)}"
        )

    unless is_boolean(options.leader),
      do: raise(ArgumentError, "the option :leader must be true or false, got: #{inspect(options.leader)}")

    unless options.at == nil or is_binary(options.at),
      do: raise(ArgumentError, "the option :at must be a path, got: #{inspect(options.at)}")

    %{options | at: options.at && String.split(options.at, "/", trim: true)}
  end

  @doc "Answers a request, or lets it go on: see `:at`."
  @spec call(conn, options) :: conn when conn: struct
  def call(%{path_info: path} = conn, %{at: at} = options) do
    case answer(options, below(path, at || [])) do
      nil when at == nil -> send_back(conn, {404, @text, "not found\n"})
      nil -> conn
      answer -> send_back(conn, answer)
    end
  end

  defp below(path, at) do
    case Enum.split(path, length(at)) do
      {^at, rest} -> rest
      _elsewhere -> nil
    end
  end

  defp send_back(conn, {status, type, body}) do
    conn
    |> Plug.Conn.put_resp_header("content-type", type)
    |> Plug.Conn.put_resp_header("cache-control", "no-store")
    |> Plug.Conn.send_resp(status, body)
    |> Plug.Conn.halt()
  end

  @doc """
  What is answered for a path (its segments) below the plug's: the status, the type and the body; `nil` for one that it does not serve.

      iex> options = Tiebeam.Plug.Health.init(cluster: MyApp.Cluster)
      iex> Tiebeam.Plug.Health.answer(options, ["health"])
      {200, "text/plain; charset=utf-8", "ok\\n"}
      iex> Tiebeam.Plug.Health.answer(options, ["nothing"])
      nil
  """
  @spec answer(options, [String.t()] | nil) ::
          {status :: 200 | 503, content_type :: String.t(), body :: String.t()} | nil
  def answer(options, ["health"]), do: verdict(options, &health/1)
  def answer(options, ["ready"]), do: verdict(options, &ready/1)

  def answer(options, ["metrics"]) do
    if running?(options),
      do: {200, Metrics.content_type(), Metrics.prometheus(options.cluster)},
      else: {503, @text, no_cluster(options)}
  end

  def answer(_options, _other), do: nil

  defp verdict(options, check) do
    why = if running?(options), do: check.(options), else: no_cluster(options)
    if why, do: {503, @text, why}, else: {200, @text, "ok\n"}
  end

  # Its supervisor has the tables.
  defp running?(%{cluster: cluster}), do: :ets.whereis(cluster) != :undefined

  defp no_cluster(%{cluster: cluster}), do: "no cluster #{inspect(cluster)} runs on this node\n"

  # Why it is not well; `nil` if it is.
  defp health(%{cluster: cluster}) do
    case Tiebeam.health(cluster) do
      %{minority: true} ->
        "this node sees no majority of the members that were last here together\n"

      %{multiplier: multiplier} when multiplier >= @unwell ->
        "this node is slow itself, or its network loses much\n"

      %{group: {:stopped, why}} ->
        "this node takes no part in its group any more: #{why}\n"

      _well ->
        nil
    end
  end

  defp ready(options), do: health(options) || present(options) || led(options)

  defp present(%{cluster: cluster, members: wanted}) do
    alive = for %{status: :alive, node: node} <- Tiebeam.members(cluster), do: node

    cond do
      node() not in alive -> "this node is no member at present\n"
      length(alive) < wanted -> "this node sees #{length(alive)} of #{wanted} members\n"
      true -> nil
    end
  end

  defp led(%{leader: false}), do: nil
  defp led(%{cluster: cluster}), do: if(match?({nil, _}, Table.leader(cluster)), do: "no leader is known\n")
end
