# Watches the Rust nodes of main.rs, and makes them do what there is to see.

[a, b] = [:"a@127.0.0.1", :"b@127.0.0.1"]

{:ok, _} = Tiebeam.start_link(name: Watch)
:ok = Tiebeam.subscribe(Watch)

defmodule Next do
  # The next change of a node. On a busy machine one is suspected now and then, and recovers.
  def change(node) do
    receive do
      {:tiebeam, Watch, {:member, change, %{node: ^node} = member}}
      when change not in [:suspect, :recovered] ->
        IO.puts("#{change} #{node}: #{member.kind}, #{member.status}, says #{inspect(member.metadata)}")
    end
  end
end

# Nodes that are connected and have a cluster of the same identity find each other.
for node <- [a, b] do
  true = Node.connect(node)
  Next.change(node)
end

send({:watched, a}, {:say, "busy"})
Next.change(a)

send({:watched, a}, :leave)
Next.change(a)

# Who crashes says nothing: the others find out.
send({:watched, b}, :crash)
Next.change(b)

here = for %{status: :alive, node: node} <- Tiebeam.members(Watch), do: node
IO.puts("still here: #{inspect(here)}")
