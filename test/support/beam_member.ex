defmodule Support.BeamMember do
  @moduledoc """
  BEAM nodes that run the package, each steered past distribution.

  All run the cluster `Test.Cluster`, and a `Support.Recorder` of its events.
  """
  alias Support.{Beam, Recorder}
  alias Tiebeam.Member

  @cluster Test.Cluster

  # What the defaults do in seconds, in a fraction of one. Nobody is evicted.
  @timing [probe_interval: 250, probe_timeout: 100, gossip_interval: 50] ++
            [greet_first: 100, greet_max: 500, sync_interval: 500]

  @cluster_options [:join, :discovery, :cluster, :profile, :timing, :evict, :metadata] ++
                     [:voters, :expect, :data_dir, :session_ttl]

  def cluster, do: @cluster

  @doc "A node with the package, which takes part in nothing yet. Options as for `Support.Beam.start_peer/2`."
  def start_node(node, opts \\ []) do
    logger = Path.join(Application.app_dir(:logger), "ebin")
    peer = Beam.start_peer(node, Keyword.update(opts, :args, ["-pa", logger], &(["-pa", logger] ++ &1)))
    {:ok, _} = Beam.on(peer, Application, :ensure_all_started, [:tiebeam])
    peer
  end

  @doc "A node that takes part. Options of `start_node/2` and of `start_cluster/2`."
  def start(node, opts \\ []) do
    {cluster, opts} = Keyword.split(opts, @cluster_options)
    node |> start_node(opts) |> start_cluster(cluster)
  end

  @doc "Starts the cluster and the recorder on a node. Options as for `Tiebeam.start_link/1`."
  def start_cluster(peer, opts \\ []) do
    {:ok, _} = start_tiebeam(peer, opts)
    {:ok, _} = start_child(peer, Recorder.child_spec(@cluster))
    peer
  end

  @doc "Starts the cluster alone."
  def start_tiebeam(peer, opts \\ []) do
    defaults = if opts[:profile], do: [name: @cluster], else: [name: @cluster, timing: @timing]
    start_child(peer, Tiebeam.child_spec(Keyword.merge(defaults, opts)))
  end

  # Under a supervisor of OTP's own, for it must outlive the call that starts it.
  defp start_child(peer, spec), do: Beam.on(peer, :supervisor, :start_child, [:kernel_safe_sup, spec])

  @doc "Stops the cluster in an orderly way."
  def stop_cluster(peer) do
    :ok = Beam.on(peer, :supervisor, :terminate_child, [:kernel_safe_sup, {Tiebeam, @cluster}])
    :ok = Beam.on(peer, :supervisor, :delete_child, [:kernel_safe_sup, {Tiebeam, @cluster}])
  end

  @doc "Kills the program; its name can be started again afterwards."
  def kill(peer) do
    Process.flag(:trap_exit, true)
    peer |> Beam.os_pid() |> Beam.signal("KILL")
    Support.Eventually.eventually(fn -> not Process.alive?(peer.peer) end)
    ExUnit.Callbacks.stop_supervised(peer.node)
  end

  def members(peer), do: Beam.on(peer, Tiebeam, :members, [@cluster])

  def member(peer, %{node: node}), do: Beam.on(peer, Tiebeam, :member, [@cluster, node])

  def alive(peer), do: for(%Member{status: :alive, node: node} <- members(peer), do: node)

  def status(peer, other) do
    with %Member{status: status} <- member(peer, other), do: status
  end

  def events(peer), do: Beam.on(peer, Recorder, :events, [])

  @doc """
  What `peer` was told of the node of `other`, in order: `[:up, :down]`. A suspicion is no news: on a busy machine there is
  one now and then.
  """
  def told(peer, %{node: node}) do
    for {:member, change, %Member{node: ^node}} when change in [:up, :down, :left] <- events(peer), do: change
  end
end
