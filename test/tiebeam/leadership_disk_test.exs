# A node that leads and whose disk fills up: a file system of its own, in a mount namespace of its own. `bin/test partitions`.
defmodule Tiebeam.LeadershipDiskTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Net, OsProcess, RustMember}
  alias Tiebeam.{KV, Leader}

  @cluster BeamMember.cluster()
  @moduletag :partitions
  @moduletag timeout: 300_000

  @deadline 60_000
  @size "8m"

  # A few of them are more than the disk has room for.
  @value String.duplicate("x", 60_000)

  setup context do
    Support.FailureLog.enter(context.module, context.test)

    directory =
      Path.join(System.tmp_dir!(), "tiebeam_full_#{System.unique_integer([:positive])}_#{System.pid()}")

    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  # The command that runs a program that sees a small file system in a directory. It goes with the program.
  defp small(directory) do
    [
      "unshare",
      "-m",
      "sh",
      "-c",
      "mount -t tmpfs -o size=#{@size} tmpfs '#{directory}' && exec \"$@\"",
      "small"
    ]
  end

  defp start_node(:beam, name, voters, directory) do
    options = [join: voters, voters: voters, profile: :fast, data_dir: directory, through: small(directory)]
    peer = BeamMember.start(name, options)
    Map.merge(peer, %{kind: :beam, os_pid: Beam.os_pid(peer)})
  end

  defp start_node(:rust, name, voters, directory) do
    args = ["--profile", "fast", "--voters", Enum.join(voters, ","), "--data-dir", directory]
    member = RustMember.start(name, join: voters -- [name], through: small(directory), args: args)
    Map.put(member, :os_pid, "#{OsProcess.os_pid(member.process)}")
  end

  # What the disk has left is used up by another program.
  defp fill(node, directory) do
    command = ["-t", node.os_pid, "-m", "dd", "if=/dev/zero", "of=#{directory}/full", "bs=4096"]
    {said, status} = System.cmd("nsenter", command, stderr_to_stdout: true, env: [{"LC_ALL", "C"}])
    assert status != 0 and said =~ "No space left on device", said
  end

  defp on(peer, module, function, arguments),
    do: Beam.on(peer, module, function, [@cluster | arguments], @deadline)

  defp health(%{kind: :beam} = node), do: Beam.on(node, GenServer, :call, [:tiebeam, :health])
  defp health(%{kind: :rust} = node), do: RustMember.ask(node, :health)

  defp put(%{kind: :beam} = node, key, value), do: on(node, KV, :put, [key, value])
  defp put(%{kind: :rust} = node, key, value), do: RustMember.ask(node, {:kv, :put, key, value})

  # Writes until the node has stopped to take part: what was acknowledged.
  defp write(peer, node, number, acknowledged) do
    case health(node).group do
      {:stopped, why} ->
        {why, acknowledged}

      _ ->
        key = "n#{number}"

        acknowledged =
          if match?({:ok, _}, on(peer, KV, :put, [key, @value])), do: [key | acknowledged], else: acknowledged

        assert number < 1_000, "the disk is full, and nothing fails"
        write(peer, node, number + 1, acknowledged)
    end
  end

  for kind <- [:beam, :rust] do
    test "a #{kind} node whose disk is full leads no more, says why, and stays; the others go on", %{
      directory: directory
    } do
      [name | others] = voters = for prefix <- ["d", "b", "b"], do: Net.name(prefix)
      node = start_node(unquote(kind), name, voters, directory)
      peers = for other <- others, do: BeamMember.start(other, join: voters, voters: voters, profile: :fast)
      [peer, watcher] = peers

      eventually(
        fn ->
          _ = on(peer, Leader, :step_down, [name])
          match?({:ok, ^name, _term}, on(peer, Leader, :leader, []))
        end,
        @deadline
      )

      {:ok, _} = put(node, "before", "kept")
      fill(node, directory)
      {why, acknowledged} = write(peer, node, 1, ["before"])
      assert why =~ "No space left on device" and why =~ "start the node again"
      assert put(node, "after", 1) == {:error, :stopped}

      # The others lead and write, and have all that was acknowledged.
      eventually(
        fn ->
          with {:ok, leader, _term} <- on(watcher, Leader, :leader, []),
               do: leader in others,
               else: (_ -> false)
        end,
        @deadline
      )

      eventually(fn -> match?({:ok, _}, on(peer, KV, :put, ["after", 1])) end, @deadline)
      for key <- acknowledged, do: assert({:ok, _value, _revision} = on(watcher, KV, :get, [key]))

      # The node is a member of the cluster as before.
      assert match?({:stopped, _}, health(node).group)
      assert on(peer, Tiebeam, :member, [name]).status == :alive
    end
  end
end
